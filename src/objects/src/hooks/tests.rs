//! Defaults, births and successions of objects, kind by kind.

use serde_json::{Value, json};

use super::{Part, of, prepare_for_create, prepare_for_update};
use crate::hooks::scale;
use crate::kind::Kind;
use crate::registry::registry;

fn kind(group: &str, version: &str, name: &str) -> &'static Kind {
    registry().kind(group, version, name).expect("a built-in kind")
}

fn defaulted(kind: &Kind, mut object: Value) -> Value {
    (of(kind).defaults)(&mut object);
    object
}

/// A minimal Deployment gets what Kubernetes gives it, and defaulting twice changes nothing more.
#[test]
fn deployment_defaults() {
    let deployments = kind("apps", "v1", "Deployment");
    let object = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "a", "image": "nginx", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}},
            {"name": "b", "image": "r:5000/x:1.2", "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}}},
            {"name": "c", "image": "x@sha256:00"}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]}}}});
    let object = defaulted(deployments, object);
    let spec = &object["spec"];
    assert_eq!(spec["replicas"], json!(1));
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!((&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]), (&json!(10), &json!(600)));
    let pod = &spec["template"]["spec"];
    assert_eq!(
        (&pod["restartPolicy"], &pod["dnsPolicy"], &pod["schedulerName"], &pod["terminationGracePeriodSeconds"]),
        (&json!("Always"), &json!("ClusterFirst"), &json!("default-scheduler"), &json!(30))
    );
    assert!(pod.get("enableServiceLinks").is_none(), "only pods themselves get it");
    let containers = pod["containers"].as_array().expect("list");
    let policies: Vec<&Value> = containers.iter().map(|container| &container["imagePullPolicy"]).collect();
    assert_eq!(policies, [&json!("Always"), &json!("IfNotPresent"), &json!("IfNotPresent")]);
    assert_eq!(containers[0]["ports"][0]["protocol"], json!("TCP"));
    assert_eq!(
        containers[0]["livenessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
               "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(
        containers[1]["resources"],
        json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
        "templates get no requests"
    );
    assert_eq!(
        pod["volumes"],
        json!([{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}}])
    );
    assert_eq!(defaulted(deployments, object.clone()), object);
    let recreate = defaulted(deployments, json!({"spec": {"strategy": {"type": "Recreate"}, "replicas": 0}}));
    assert_eq!(
        (&recreate["spec"]["strategy"], &recreate["spec"]["replicas"]),
        (&json!({"type": "Recreate"}), &json!(0))
    );
}

/// A pod is born Pending with its class of service, whatever status was sent; requests follow limits.
#[test]
fn pods_are_born_pending() {
    let pods = kind("", "v1", "Pod");
    let table = [
        (json!({}), "BestEffort"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
    ];
    for (resources, class) in table {
        let pod = json!({"metadata": {"name": "a", "resourceVersion": "9", "generation": 7, "deletionTimestamp": "x"},
            "spec": {"serviceAccount": "old", "containers": [{"name": "a", "image": "a", "resources": resources}]},
            "status": {"phase": "Running"}});
        let mut pod = defaulted(pods, pod);
        prepare_for_create(pods, &mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": class}), "{resources}");
        assert_eq!(pod["spec"]["serviceAccountName"], json!("old"));
        assert_eq!(pod["spec"]["enableServiceLinks"], json!(true));
        assert!(pod["metadata"].get("deletionTimestamp").is_none() && pod["metadata"].get("resourceVersion").is_none());
    }
}

/// Main and status each change their own half; generation counts changes of spec only.
#[test]
fn halves_and_generation() {
    let deployments = kind("apps", "v1", "Deployment");
    let mut object = json!({"metadata": {"name": "web", "uid": "u", "creationTimestamp": "t"}, "spec": {"replicas": 1},
        "status": {"replicas": 9}});
    prepare_for_create(deployments, &mut object);
    assert_eq!(object["metadata"]["generation"], json!(1));
    assert_eq!(object["status"], json!({}));

    let mut new = json!({"metadata": {"name": "other", "uid": "x", "labels": {"a": "b"}, "generation": 99, "deletionTimestamp": "t"},
        "spec": {"replicas": 2}, "status": {"replicas": 3}});
    prepare_for_update(deployments, &mut new, &object, Part::Main);
    assert_eq!(
        new,
        json!({"metadata": {"name": "web", "uid": "u", "creationTimestamp": "t", "labels": {"a": "b"}, "generation": 2},
            "spec": {"replicas": 2}, "status": {}})
    );

    let mut label_only = new.clone();
    label_only["metadata"]["labels"]["a"] = json!("c");
    prepare_for_update(deployments, &mut label_only, &new, Part::Main);
    assert_eq!(label_only["metadata"]["generation"], json!(2));

    let mut status = json!({"metadata": {"name": "web", "labels": {}, "managedFields": [{"manager": "m"}]},
        "spec": {"replicas": 7}, "status": {"replicas": 2}});
    prepare_for_update(deployments, &mut status, &new, Part::Status);
    assert_eq!(status["spec"], json!({"replicas": 2}));
    assert_eq!(status["status"], json!({"replicas": 2}));
    assert_eq!(status["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(status["metadata"]["generation"], json!(2));
    assert_eq!(status["metadata"]["managedFields"], json!([{"manager": "m"}]));
}

/// Namespaces carry their name, their finalizer and their phase.
#[test]
fn namespaces() {
    let namespaces = kind("", "v1", "Namespace");
    let mut object = defaulted(namespaces, json!({"metadata": {"name": "a"}}));
    prepare_for_create(namespaces, &mut object);
    assert_eq!(object["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
    assert_eq!(object["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(object["status"], json!({"phase": "Active"}));
    let mut new = json!({"metadata": {"name": "a"}, "spec": {"finalizers": []}});
    prepare_for_update(namespaces, &mut new, &object, Part::Main);
    assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
}

/// Secrets fold their texts into data; nodes keep the status they register with.
#[test]
fn secrets_and_nodes() {
    let secrets = kind("", "v1", "Secret");
    let secret = defaulted(secrets, json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "text", "c": ""}}));
    assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eA==", "b": "dGV4dA==", "c": ""}}));
    let nodes = kind("", "v1", "Node");
    let mut node = defaulted(nodes, json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4000m"}}}));
    prepare_for_create(nodes, &mut node);
    assert_eq!(node["status"], json!({"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}}));
}

/// Services: types imply fields, an update keeps what was allocated, and leaving a type gives it up.
#[test]
fn services() {
    let services = kind("", "v1", "Service");
    let service = defaulted(
        services,
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "type": "LoadBalancer"}}),
    );
    let spec = &service["spec"];
    assert_eq!(spec["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    assert_eq!(spec["sessionAffinity"], json!("None"));
    assert_eq!(
        (&spec["externalTrafficPolicy"], &spec["internalTrafficPolicy"]),
        (&json!("Cluster"), &json!("Cluster"))
    );
    assert_eq!((&spec["ipFamilies"], &spec["allocateLoadBalancerNodePorts"]), (&json!(["IPv4"]), &json!(true)));
    let mut old = service.clone();
    old["spec"]["clusterIP"] = json!("10.96.0.9");
    old["spec"]["clusterIPs"] = json!(["10.96.0.9"]);
    old["spec"]["ports"][0]["nodePort"] = json!(30080);
    let mut new =
        defaulted(services, json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}], "type": "NodePort"}}));
    prepare_for_update(services, &mut new, &old, Part::Main);
    assert_eq!(new["spec"]["clusterIP"], json!("10.96.0.9"));
    assert_eq!(new["spec"]["ports"][0]["nodePort"], json!(30080));
    let mut cluster_ip = old.clone();
    cluster_ip["spec"]["type"] = json!("ClusterIP");
    prepare_for_update(services, &mut cluster_ip, &old, Part::Main);
    assert!(cluster_ip["spec"]["ports"][0].get("nodePort").is_none());
    let external = defaulted(services, json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}));
    assert!(external["spec"].get("internalTrafficPolicy").is_none());
}

/// A job selects its own pods by its uid and keeps doing so.
#[test]
fn jobs() {
    let jobs = kind("batch", "v1", "Job");
    let mut job = defaulted(
        jobs,
        json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
    );
    prepare_for_create(jobs, &mut job);
    assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], json!("j"));
    assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
    let mut again =
        defaulted(jobs, json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never"}}}}));
    prepare_for_update(jobs, &mut again, &job, Part::Main);
    assert_eq!(again["spec"], job["spec"]);
}

/// Scale is read from and written to every scalable kind.
#[test]
fn scales() {
    let deployments = kind("apps", "v1", "Deployment");
    let mut object = json!({"metadata": {"name": "web", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": "t"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "1", "a": "2"}}}, "status": {"replicas": 3, "readyReplicas": 2}});
    assert_eq!(
        scale::read(deployments, &object),
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": "t"},
            "spec": {"replicas": 3}, "status": {"replicas": 3, "readyReplicas": 2, "selector": "a=2,b=1"}})
    );
    scale::write(&mut object, &json!({"spec": {"replicas": 8}})).expect("valid");
    assert_eq!(object["spec"]["replicas"], json!(8));
    scale::write(&mut object, &json!({"spec": {}})).expect("absent is zero");
    assert_eq!(object["spec"]["replicas"], json!(0));
    let error = scale::write(&mut object, &json!({"spec": {"replicas": -1}})).expect_err("negative");
    assert_eq!(error.to_string(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
    let scalable = registry().kinds().iter().filter(|kind| kind.subresource("scale").is_some());
    for kind in scalable {
        assert_eq!(scale::read(kind, &json!({}))["kind"], json!("Scale"), "{}", kind.kind);
    }
}

/// Objects of any shape, of every kind, pass through defaults, births and successions without a panic.
#[test]
fn no_shape_panics() {
    let shapes = [
        json!({}),
        json!({"metadata": null, "spec": null, "status": null}),
        json!({"metadata": [], "spec": [], "status": 1}),
        json!({"metadata": {"labels": 1}, "spec": {"template": [], "containers": {}, "ports": [1], "selector": 3}}),
        json!({"spec": {"template": {"spec": {"containers": [1, {}], "volumes": [[], {}]}}, "ports": [{"port": "x"}]}}),
        json!("text"),
        json!(null),
    ];
    for kind in registry().kinds() {
        for shape in &shapes {
            let mut object = defaulted(kind, shape.clone());
            prepare_for_create(kind, &mut object);
            for part in [Part::Main, Part::Status] {
                let mut new = shape.clone();
                prepare_for_update(kind, &mut new, &object, part);
            }
        }
    }
}

/// Each line of the hooks table is about a kind that is there.
#[test]
fn hooks_are_about_real_kinds() {
    for (group, name, _) in super::HOOKS {
        let known = registry().kinds().iter().any(|kind| kind.group == *group && kind.kind == *name);
        assert!(known, "{group}/{name} is not in the kinds table");
    }
}
