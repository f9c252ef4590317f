//! Complaints, kind by kind, in Kubernetes' words.

use serde_json::{Value, json};

use super::{create, update};
use crate::hooks;
use crate::kind::Kind;
use crate::registry::registry;

fn kind(group: &str, version: &str, name: &str) -> &'static Kind {
    registry().kind(group, version, name).expect("a built-in kind")
}

fn complaints(kind: &Kind, object: &Value) -> Vec<String> {
    let mut object = object.clone();
    (hooks::of(kind).defaults)(&mut object);
    create(kind, &object).iter().map(ToString::to_string).collect()
}

/// `base` with `value` at the JSON pointer `at` (removed when null).
fn with(base: &Value, at: &str, value: Value) -> Value {
    let mut object = base.clone();
    let steps: Vec<&str> = at.trim_start_matches('/').split('/').collect();
    let (last, way) = steps.split_last().expect("a path");
    let mut place = &mut object;
    for step in way {
        place = match step.parse::<usize>() {
            Ok(index) => place.get_mut(index).expect("an item"),
            Err(_) => place.as_object_mut().expect("a map").entry(*step).or_insert_with(|| json!({})),
        };
    }
    if value.is_null() {
        place.as_object_mut().expect("a map").remove(*last);
    } else {
        place[*last] = value;
    }
    object
}

fn pod() -> Value {
    json!({"metadata": {"name": "a", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "emptyDir": {}}]}})
}

/// Metadata is judged alike for every kind.
#[test]
fn metadata() {
    let pods = kind("", "v1", "Pod");
    assert_eq!(complaints(pods, &pod()), Vec::<String>::new());
    let owner = json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": true});
    let table = [
        ("/metadata/name", json!(null), "metadata.name: Required value: name or generateName is required"),
        ("/metadata/name", json!("A"), "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must"),
        ("/metadata/namespace", json!(""), "metadata.namespace: Required value"),
        ("/metadata/labels", json!({"a b": "x"}), "metadata.labels: Invalid value: \"a b\": name part must consist"),
        ("/metadata/labels", json!({"a": "x y"}), "metadata.labels: Invalid value: \"x y\": a valid label must"),
        ("/metadata/annotations", json!({"a/b/c": ""}), "metadata.annotations: Invalid value: \"a/b/c\""),
        (
            "/metadata/annotations",
            json!({"a": "x".repeat(300_000)}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        ("/metadata/finalizers", json!(["a b"]), "metadata.finalizers: Invalid value: \"a b\""),
        (
            "/metadata/ownerReferences",
            json!([{"kind": "K", "name": "n", "uid": "u"}]),
            "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
        ),
        ("/metadata/ownerReferences", json!([owner, owner]), "metadata.ownerReferences: Invalid value: [{"),
    ];
    for (at, value, expected) in table {
        let found = complaints(pods, &with(&pod(), at, value.clone()));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{at} = {value}: {found:?}");
    }
    let generated = with(&with(&pod(), "/metadata/name", json!(null)), "/metadata/generateName", json!("web-"));
    assert!(complaints(pods, &generated).is_empty());
    let nodes = kind("", "v1", "Node");
    let found = complaints(nodes, &json!({"metadata": {"name": "n", "namespace": "x"}}));
    assert_eq!(found, ["metadata.namespace: Forbidden: not allowed on this type"]);
}

/// Pods, field by field.
#[test]
fn pods() {
    let pods = kind("", "v1", "Pod");
    let c = "/spec/containers/0";
    let table = [
        ("/spec/containers".to_owned(), json!([]), "spec.containers: Required value"),
        (format!("{c}/name"), json!(null), "spec.containers[0].name: Required value"),
        (format!("{c}/name"), json!("A"), "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label"),
        (format!("{c}/image"), json!(null), "spec.containers[0].image: Required value"),
        (
            format!("{c}/imagePullPolicy"),
            json!("Now"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Now\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (format!("{c}/ports"), json!([{}]), "spec.containers[0].ports[0].containerPort: Required value"),
        (
            format!("{c}/ports"),
            json!([{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            format!("{c}/ports"),
            json!([{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]),
            "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
        ),
        (format!("{c}/env"), json!([{"value": "x"}]), "spec.containers[0].env[0].name: Required value"),
        (
            format!("{c}/env"),
            json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            format!("{c}/volumeMounts"),
            json!([{"name": "w", "mountPath": "/a"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
        ),
        (
            format!("{c}/volumeMounts"),
            json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]),
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
        ),
        (
            format!("{c}/resources"),
            json!({"requests": {"cpu": "x"}}),
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"x\": quantities must match",
        ),
        (
            format!("{c}/resources"),
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            format!("{c}/livenessProbe"),
            json!({}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/restartPolicy".to_owned(),
            json!("Maybe"),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "/spec/volumes".to_owned(),
            json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/tolerations".to_owned(),
            json!([{"operator": "Equal"}]),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
        ),
        (
            "/spec/activeDeadlineSeconds".to_owned(),
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1",
        ),
    ];
    for (at, value, expected) in table {
        let found = complaints(pods, &with(&pod(), &at, value.clone()));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{at} = {value}: {found:?}");
    }
    let two = json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]);
    assert_eq!(
        complaints(pods, &with(&pod(), "/spec/containers", two)),
        ["spec.containers[1].name: Duplicate value: \"c\""]
    );
}

/// A pod changes its image and little else.
#[test]
fn pod_updates() {
    let pods = kind("", "v1", "Pod");
    let old = with(&pod(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists", "effect": "NoExecute"}]));
    let mut old = old;
    (hooks::of(pods).defaults)(&mut old);
    let more = json!([{"key": "a", "operator": "Exists", "effect": "NoExecute"}, {"key": "b", "operator": "Exists"}]);
    for (at, value) in [
        ("/spec/containers/0/image", json!("j")),
        ("/spec/activeDeadlineSeconds", json!(5)),
        ("/spec/tolerations", more),
        ("/metadata/labels", json!({"a": "b"})),
    ] {
        let found = update(pods, &with(&old, at, value), &old);
        assert!(found.is_empty(), "{at}: {found:?}");
    }
    for (at, value, field) in [
        ("/spec/nodeName", json!("n"), "spec"),
        ("/spec/containers/0/name", json!("d"), "spec"),
        ("/spec/containers", json!([{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]), "spec.containers"),
        ("/spec/tolerations", json!([]), "spec.tolerations"),
    ] {
        let found = update(pods, &with(&old, at, value), &old);
        assert_eq!(found.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), [field], "{at}");
    }
}

fn deployment() -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// Deployments: selector, template and rollout bounds.
#[test]
fn deployments() {
    let deployments = kind("apps", "v1", "Deployment");
    assert_eq!(complaints(deployments, &deployment()), Vec::<String>::new());
    let table = [
        ("/spec/selector", json!(null), "spec.selector: Required value"),
        ("/spec/selector", json!({}), "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
        (
            "/spec/selector/matchLabels/app",
            json!("x"),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        ("/spec/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "/spec/template/spec/containers/0/image",
            json!(null),
            "spec.template.spec.containers[0].image: Required value",
        ),
        (
            "/spec/strategy",
            json!({"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": "a%"}}),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"a%\": a valid percent string",
        ),
        (
            "/spec/progressDeadlineSeconds",
            json!(0),
            "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
        ),
    ];
    for (at, value, expected) in table {
        let found = complaints(deployments, &with(&deployment(), at, value.clone()));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{at} = {value}: {found:?}");
    }
    let other = with(
        &with(&deployment(), "/spec/selector/matchLabels/app", json!("x")),
        "/spec/template/metadata/labels/app",
        json!("x"),
    );
    let found = update(deployments, &other, &deployment());
    assert_eq!(
        found[0].to_string(),
        "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"
    );
}

/// The other workloads.
#[test]
fn other_workloads() {
    let stateful = kind("apps", "v1", "StatefulSet");
    let set = with(
        &deployment(),
        "/spec/volumeClaimTemplates",
        json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]),
    );
    let set = with(&set, "/spec/template/spec/containers/0/volumeMounts", json!([{"name": "data", "mountPath": "/d"}]));
    assert_eq!(complaints(stateful, &set), Vec::<String>::new());
    let found = update(stateful, &with(&set, "/spec/serviceName", json!("other")), &set);
    assert_eq!((found.len(), found[0].field.as_str()), (1, "spec"));
    assert!(update(stateful, &with(&set, "/spec/replicas", json!(3)), &set).is_empty());

    let jobs = kind("batch", "v1", "Job");
    let found = complaints(jobs, &deployment());
    assert_eq!(
        found,
        ["spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"Never\", \"OnFailure\""]
    );
    let job = with(&deployment(), "/spec/template/spec/restartPolicy", json!("Never"));
    let found = update(jobs, &with(&job, "/spec/template/spec/containers/0/image", json!("j")), &job);
    assert_eq!(found[0].field, "spec.template");

    let cron = kind("batch", "v1", "CronJob");
    let object = json!({"metadata": {"name": "c", "namespace": "d"}, "spec": {"schedule": "* * *", "jobTemplate": {"spec": job["spec"]}}});
    assert_eq!(
        complaints(cron, &object),
        ["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3"]
    );
}

/// Services: ports, types, addresses.
#[test]
fn services() {
    let services = kind("", "v1", "Service");
    let service = json!({"metadata": {"name": "s", "namespace": "d"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(complaints(services, &service), Vec::<String>::new());
    let table = [
        ("/spec/ports", json!([]), "spec.ports: Required value"),
        (
            "/spec/ports",
            json!([{"port": 0, "targetPort": 1}]),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        ("/spec/ports", json!([{"port": 1, "name": "a"}, {"port": 2}]), "spec.ports[1].name: Required value"),
        (
            "/spec/ports",
            json!([{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]),
            "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}",
        ),
        (
            "/spec/ports",
            json!([{"port": 1, "nodePort": 30000}]),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        ("/spec/type", json!("Other"), "spec.type: Unsupported value: \"Other\""),
        ("/spec/clusterIP", json!("1.2"), "spec.clusterIPs[0]: Invalid value: \"1.2\": must be a valid IP address"),
        ("/metadata/name", json!("a.b"), "metadata.name: Invalid value: \"a.b\": must not contain dots"),
    ];
    for (at, value, expected) in table {
        let found = complaints(services, &with(&service, at, value.clone()));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{at} = {value}: {found:?}");
    }
    let old = with(&with(&service, "/spec/clusterIP", json!("10.0.0.1")), "/spec/clusterIPs", json!(["10.0.0.1"]));
    let new = with(&with(&service, "/spec/clusterIP", json!("10.0.0.2")), "/spec/clusterIPs", json!(["10.0.0.2"]));
    assert_eq!(
        update(services, &new, &old)[0].to_string(),
        "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
    );
}

/// ConfigMaps, Secrets, Nodes.
#[test]
fn core_kinds() {
    let config_maps = kind("", "v1", "ConfigMap");
    let base = json!({"metadata": {"name": "c", "namespace": "d"}, "data": {"a": "1"}});
    assert!(complaints(config_maps, &base).is_empty());
    assert!(
        complaints(config_maps, &with(&base, "/data", json!({"a/b": ""})))[0]
            .starts_with("data[a/b]: Invalid value: \"a/b\"")
    );
    let large = with(&base, "/data", json!({"a": "x".repeat(1_048_577)}));
    assert!(complaints(config_maps, &large)[0].contains("Too long: may not be more than 1048576 bytes"));
    let frozen = with(&base, "/immutable", json!(true));
    let found = update(config_maps, &with(&frozen, "/data", json!({"a": "2"})), &frozen);
    assert_eq!(found[0].to_string(), "data: Forbidden: field is immutable when `immutable` is set");

    let secrets = kind("", "v1", "Secret");
    let secret = json!({"metadata": {"name": "c", "namespace": "d"}, "data": {"a": "eA=="}, "immutable": true});
    for changed in [with(&secret, "/data/a", json!("eQ==")), with(&secret, "/immutable", json!(false))] {
        assert_eq!(update(secrets, &changed, &secret).len(), 1, "{changed}");
    }
    let labelled = with(&secret, "/metadata/labels", json!({"a": "b"}));
    assert!(update(secrets, &labelled, &secret).is_empty(), "metadata is not frozen");
    let secret = json!({"metadata": {"name": "c", "namespace": "d"}, "data": {"a": "eA=="}});
    assert!(complaints(secrets, &secret).is_empty());
    let found = complaints(secrets, &with(&secret, "/data/a", json!("not base64!")));
    assert_eq!(found, ["data[a]: Invalid value: \"<omitted>\": must be valid base64"], "the value stays secret");
    let found = complaints(secrets, &with(&secret, "/type", json!("kubernetes.io/tls")));
    assert_eq!(found, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]);
    let typed = with(&secret, "/type", json!("Opaque"));
    assert_eq!(
        update(secrets, &with(&typed, "/type", json!("x")), &typed)[0].to_string(),
        "type: Invalid value: \"x\": field is immutable"
    );

    let nodes = kind("", "v1", "Node");
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.1.0.0/24"}});
    let found = update(nodes, &with(&node, "/spec/podCIDR", json!("10.2.0.0/24")), &node);
    assert_eq!(
        found[0].to_string(),
        "spec.podCIDR: Forbidden: node updates may not change podCIDR except from \"\" to valid"
    );
    let taints = json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"effect": "x"}]);
    let found = complaints(nodes, &with(&node, "/spec/taints", taints));
    assert_eq!(found.len(), 3, "{found:?}");
}

/// What the table declares is checked for kinds without a line of code of their own.
#[test]
fn declared_rules() {
    let scalers = kind("autoscaling", "v2", "HorizontalPodAutoscaler");
    let scaler = json!({"metadata": {"name": "h", "namespace": "d"}, "spec": {"maxReplicas": 0}});
    assert_eq!(
        complaints(scalers, &scaler),
        ["spec.maxReplicas: Invalid value: 0: must be greater than or equal to 1"]
    );
    let classes = kind("storage.k8s.io", "v1", "StorageClass");
    let class = json!({"metadata": {"name": "c"}, "volumeBindingMode": "Later"});
    assert_eq!(
        complaints(classes, &class),
        [
            "provisioner: Required value",
            "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\""
        ]
    );
    let old = json!({"metadata": {"name": "c"}, "provisioner": "a"});
    let found = update(classes, &with(&old, "/provisioner", json!("b")), &old);
    assert_eq!(found[0].to_string(), "provisioner: Invalid value: \"b\": field is immutable");
    let policies = kind("networking.k8s.io", "v1", "NetworkPolicy");
    let policy =
        json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"podSelector": {}, "policyTypes": ["Sideways"]}});
    assert_eq!(
        complaints(policies, &policy),
        ["spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Egress\", \"Ingress\""]
    );
    let roles = kind("rbac.authorization.k8s.io", "v1", "ClusterRole");
    let role = json!({"metadata": {"name": "system:x"}, "rules": [{"apiGroups": [""], "resources": ["pods"]}]});
    assert_eq!(complaints(roles, &role), ["rules[0].verbs: Required value"]);
}

/// Quilt workloads obey the Quilt contract's rules.
#[test]
fn workloads() {
    let workloads = kind("quilt.sh", "v1", "Workload");
    let base = json!({"metadata": {"name": "w", "namespace": "default"}, "spec": {"name": "web", "replicas": 1, "command": ["x"]}});
    assert_eq!(complaints(workloads, &base), Vec::<String>::new());
    let table = [
        ("/spec/replicas", json!(0), "spec.replicas: Invalid value: 0: must be between 1 and 10000, inclusive"),
        ("/spec/replicas", json!(10001), "spec.replicas: Invalid value: 10001"),
        ("/spec/replicas", json!(null), "spec.replicas: Required value"),
        ("/spec/name", json!(""), "spec.name: Required value"),
        ("/spec/command", json!([]), "spec.command: Required value: must not be empty"),
        (
            "/spec/memory_limit_mb",
            json!(0),
            "spec.memory_limit_mb: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        ("/spec/cpu_limit_percent", json!(0), "spec.cpu_limit_percent: Invalid value: 0: must be greater than 0"),
        ("/spec/environment", json!({"A=B": "x"}), "spec.environment: Invalid value: \"A=B\": names must not be empty"),
        ("/spec/gpu_ids", json!(["a"]), "spec.gpu_ids: Invalid value: [\"a\"]: must hold exactly gpu_count (0) ids"),
    ];
    for (at, value, expected) in table {
        let found = complaints(workloads, &with(&base, at, value.clone()));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{at} = {value}: {found:?}");
    }
}

/// Objects of any shape, of every kind, are judged without a panic, and a nameless one never passes.
#[test]
fn no_shape_panics() {
    let shapes = [
        json!({}),
        json!({"metadata": [], "spec": [], "status": 1}),
        json!({"metadata": {"labels": 1, "ownerReferences": [1]}, "spec": {"template": [], "containers": [1], "ports": [1], "selector": 3}}),
        json!({"spec": {"template": {"spec": {"containers": [1, {}], "volumes": [[], {}]}}, "strategy": {"rollingUpdate": 1}}}),
        json!("text"),
        json!(null),
    ];
    for kind in registry().kinds() {
        for shape in &shapes {
            assert!(!create(kind, shape).is_empty(), "{}", kind.kind);
            for old in &shapes {
                let _ = update(kind, shape, old);
            }
        }
    }
}
