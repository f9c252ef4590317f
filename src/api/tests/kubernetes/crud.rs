//! Create, read, update, delete: for every kind of the registry, and the finer points once.

use http::Method;
use quilt_objects::kind::{Kind, Verb};
use quilt_objects::registry::registry;
use serde_json::{Value, json};

use crate::support::{ADMIN, CONFIG_MAPS, DEPLOYMENTS, OTHER, PODS, Plane, TENANT, config_map, deployment, pod};

/// Collection path of a kind in namespace `default`.
fn collection(kind: &Kind) -> String {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let place = if kind.is_namespaced() { "/namespaces/default" } else { "" };
    format!("{root}{place}/{}", kind.plural)
}

/// The smallest object of a kind that is valid.
fn smallest(kind: &Kind) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector = json!({"matchLabels": {"a": "b"}});
    let mut job_template = template.clone();
    job_template["spec"]["restartPolicy"] = json!("Never");
    let mut object = match &*kind.kind {
        "Pod" => json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}),
        "PodTemplate" => json!({"template": template}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "PersistentVolume" => json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/tmp"}}}),
        "ReplicationController" => json!({"spec": {"replicas": 1, "selector": {"a": "b"}, "template": template}}),
        "Deployment" | "ReplicaSet" | "DaemonSet" => json!({"spec": {"selector": selector, "template": template}}),
        "StatefulSet" => json!({"spec": {"selector": selector, "template": template, "serviceName": "s"}}),
        "Job" => json!({"spec": {"template": job_template}}),
        "CronJob" => {
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": job_template}}}})
        }
        "Workload" => json!({"spec": {"name": "x", "replicas": 1, "command": ["/bin/true"]}}),
        "Event" if kind.group.is_empty() => json!({"involvedObject": {"namespace": "default"}}),
        "Event" => {
            json!({"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i",
            "action": "a", "reason": "r", "type": "Normal"})
        }
        "Role" | "ClusterRole" => json!({"rules": []}),
        "RoleBinding" | "ClusterRoleBinding" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "x"}})
        }
        "StorageClass" => json!({"provisioner": "p"}),
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIDriver" => json!({"spec": {}}),
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        "CSIStorageCapacity" => json!({"storageClassName": "s"}),
        "VolumeAttributesClass" => json!({"driverName": "d", "parameters": {"a": "b"}}),
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/c"}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {}}}),
        "IPAddress" => json!({"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.0.0.0/16"]}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}})
        }
        "PriorityClass" => json!({"value": 5}),
        "RuntimeClass" => json!({"handler": "h"}),
        "CertificateSigningRequest" => {
            json!({"spec": {"request": "LS0t", "signerName": "example.com/s", "usages": ["client auth"]}})
        }
        "CustomResourceDefinition" => json!({"spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "xs", "singular": "x", "kind": "X", "listKind": "XList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
        "APIService" => json!({"spec": {"group": "x.example.com", "version": "v1", "groupPriorityMinimum": 10,
            "versionPriority": 10, "service": {"name": "s", "namespace": "default"}}}),
        "ControllerRevision" => json!({"revision": 1, "data": {"a": 1}}),
        _ => json!({}),
    };
    let name = match &*kind.kind {
        "CustomResourceDefinition" => "xs.example.com",
        "APIService" => "v1.x.example.com",
        "IPAddress" => "10.0.0.1",
        _ => "x",
    };
    object["metadata"] = json!({"name": name});
    object
}

/// Every stored kind is created, read, listed, labelled, replaced and deleted by the same code.
#[tokio::test]
async fn every_kind_goes_round() {
    let plane = Plane::start().await;
    let mut done = 0;
    for kind in registry().kinds().iter().filter(|kind| kind.allows(Verb::Create) && kind.allows(Verb::Get)) {
        let collection = collection(kind);
        let created = plane.post(&collection, &smallest(kind)).await;
        assert_eq!(created.status, 201, "{collection}: {}", String::from_utf8_lossy(&created.bytes));
        let created = created.body;
        assert_eq!(created["kind"], *kind.kind);
        assert_eq!(created["apiVersion"], kind.api_version());
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            assert!(created["metadata"][field].as_str().is_some_and(|text| !text.is_empty()), "{collection} {field}");
        }
        let name = created["metadata"]["name"].as_str().expect("a name").to_owned();
        let path = format!("{collection}/{name}");
        let read = plane.get(&path).await.expect(200);
        assert_eq!(read, created, "{collection}: what is read is what was answered");
        let list = plane.get(&collection).await.expect(200);
        assert_eq!(list["kind"], *kind.list_kind);
        assert!(
            list["items"].as_array().is_some_and(|items| items.iter().any(|item| item["metadata"]["name"] == name))
        );
        let mut table = plane.get_as(&collection, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
        assert_eq!(table["kind"], "Table");
        let columns = table["columnDefinitions"].as_array().map(Vec::len).expect("columns");
        let rows = table["rows"].take();
        assert_eq!(rows[0]["cells"].as_array().map(Vec::len), Some(columns), "{collection}");
        let labelled = plane
            .patch(&path, "application/merge-patch+json", &json!({"metadata": {"labels": {"l": "v"}}}))
            .await
            .expect(200);
        assert_eq!(labelled["metadata"]["labels"]["l"], "v");
        assert_eq!(labelled["metadata"]["uid"], created["metadata"]["uid"]);
        assert_ne!(labelled["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
        if kind.allows(Verb::Update) {
            let replaced = plane.put(&path, &labelled).await.expect(200);
            assert_eq!(replaced, labelled, "{collection}: an equal update changes nothing");
            let stale = plane.put(&path, &created).await;
            stale.refusal(409, "Conflict");
        }
        let gone = plane.delete(&path, &Value::Null).await.expect(200);
        if gone["kind"] == "Status" {
            assert_eq!(gone["details"]["uid"], created["metadata"]["uid"]);
            plane.get(&path).await.refusal(404, "NotFound");
            plane.delete(&path, &Value::Null).await.refusal(404, "NotFound");
        } else {
            assert!(gone["metadata"]["deletionTimestamp"].is_string(), "{collection}");
        }
        done += 1;
    }
    assert!(done > 55, "{done} kinds");
}

/// Defaults, generation, status and the form of a new Pod and Deployment; spec changes count, others do not.
#[tokio::test]
async fn new_objects_are_complete() {
    let plane = Plane::start().await;
    let pod = plane.post(PODS, &pod("p")).await.expect(201);
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["spec"]["restartPolicy"], "Always");
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    let created = plane.post(DEPLOYMENTS, &deployment("d", 2)).await.expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/d");
    let merge = "application/merge-patch+json";
    let labelled = plane.patch(&path, merge, &json!({"metadata": {"labels": {"x": "y"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 1);
    let scaled = plane.patch(&path, "", &json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!((&scaled["metadata"]["generation"], &scaled["spec"]["replicas"]), (&json!(2), &json!(3)));
    let status = json!({"status": {"replicas": 3}, "spec": {"replicas": 9}});
    let main = plane.patch(&path, merge, &status).await.expect(200);
    assert_eq!((&main["spec"]["replicas"], &main["status"]["replicas"]), (&json!(9), &Value::Null));
    let status = json!({"status": {"replicas": 3}, "spec": {"replicas": 1}});
    let sub = plane.patch(&format!("{path}/status"), merge, &status).await.expect(200);
    assert_eq!((&sub["spec"]["replicas"], &sub["status"]["replicas"]), (&json!(9), &json!(3)));
}

/// Names are made from `generateName`, a taken name is refused, and a dry run stores nothing.
#[tokio::test]
async fn names_and_dry_runs() {
    let plane = Plane::start().await;
    let generated = json!({"metadata": {"generateName": "web-"}, "data": {}});
    let (first, second) = (plane.post(CONFIG_MAPS, &generated).await, plane.post(CONFIG_MAPS, &generated).await);
    let (first, second) = (first.expect(201), second.expect(201));
    assert!(first["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("web-") && name.len() == 9));
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
    plane.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let taken = plane.post(CONFIG_MAPS, &config_map("a")).await.refusal(409, "AlreadyExists");
    assert_eq!(taken["message"], "configmaps \"a\" already exists");
    assert_eq!(taken["details"], json!({"name": "a", "kind": "configmaps"}));
    plane.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("b")).await.expect(201);
    plane.get(&format!("{CONFIG_MAPS}/b")).await.refusal(404, "NotFound");
    plane.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await.refusal(409, "AlreadyExists");
    plane.delete(&format!("{CONFIG_MAPS}/a?dryRun=All"), &Value::Null).await.expect(200);
    plane.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
}

/// Objects need a namespace that exists; updates need an object that exists.
#[tokio::test]
async fn places_have_to_exist() {
    let plane = Plane::start().await;
    let nowhere = plane.post("/api/v1/namespaces/nowhere/configmaps", &config_map("a")).await.refusal(404, "NotFound");
    assert_eq!(nowhere["message"], "namespaces \"nowhere\" not found");
    plane.put(&format!("{CONFIG_MAPS}/a"), &config_map("a")).await.refusal(404, "NotFound");
    plane.patch(&format!("{CONFIG_MAPS}/a"), "", &json!({"data": {}})).await.refusal(404, "NotFound");
    let mut elsewhere = config_map("a");
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    plane.post(CONFIG_MAPS, &elsewhere).await.refusal(400, "BadRequest");
}

/// Who may see what: no key 401, a foreign cluster and an unknown one the same 404, another's root 403.
#[tokio::test]
async fn clusters_are_isolated() {
    let plane = Plane::start().await;
    let ask = async |path: &str, key: &str| {
        let request = http::Request::builder().method(Method::GET).uri(path).header("x-api-key", key);
        plane.call(request.body(axum::body::Body::empty()).expect("a request")).await
    };
    let list = "/clusters/c1/api/v1/configmaps";
    assert_eq!(ask(list, TENANT).await.expect(200)["items"], json!([]));
    assert_eq!(ask(list, ADMIN).await.status, 200);
    let foreign = ask(list, OTHER).await.refusal(404, "NotFound");
    let unknown = ask("/clusters/none/api/v1/configmaps", OTHER).await.refusal(404, "NotFound");
    assert_eq!(foreign, unknown);
    ask("/api/v1/configmaps", TENANT).await.refusal(403, "Forbidden");
    ask(list, "qk_wrong").await.refusal(401, "Unauthorized");
    ask("/api/v1/pods", "").await.refusal(401, "Unauthorized");
    // The same names in two clusters are two objects.
    let namespace = json!({"metadata": {"name": "default"}});
    plane.post("/clusters/c1/api/v1/namespaces", &namespace).await.expect(201);
    plane.post("/clusters/c1/api/v1/namespaces/default/configmaps", &config_map("only-here")).await.expect(201);
    plane.get(&format!("{CONFIG_MAPS}/only-here")).await.refusal(404, "NotFound");
    assert_eq!(ask(list, TENANT).await.expect(200)["items"].as_array().map(Vec::len), Some(1));
}

/// Many writers change one object at once without preconditions: every change is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_patches_all_count() {
    let plane = std::sync::Arc::new(Plane::start().await);
    plane.post(CONFIG_MAPS, &config_map("shared")).await.expect(201);
    let writers = (0..24).map(|n| {
        let plane = std::sync::Arc::clone(&plane);
        tokio::spawn(async move {
            let patch = json!({"data": {format!("k{n}"): n.to_string()}});
            plane.patch(&format!("{CONFIG_MAPS}/shared"), "application/merge-patch+json", &patch).await.expect(200);
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
    let read = plane.get(&format!("{CONFIG_MAPS}/shared")).await.expect(200);
    assert_eq!(read["data"].as_object().map(serde_json::Map::len), Some(25));
}

/// Two groups of Event, and two versions of autoscaler, are one store each: what one writes the other shows.
#[tokio::test]
async fn shared_stores_are_converted() {
    let plane = Plane::start().await;
    let core = "/api/v1/namespaces/default/events";
    let newer = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "it began", "type": "Normal"});
    plane.post(core, &event).await.expect(201);
    let read = plane.get(&format!("{newer}/e")).await.expect(200);
    assert_eq!((&read["apiVersion"], &read["note"]), (&json!("events.k8s.io/v1"), &json!("it began")));
    assert_eq!(read["regarding"]["name"], "p");
    assert_eq!(
        plane.get(&format!("{core}?fieldSelector=involvedObject.name%3Dp")).await.expect(200)["items"][0]["message"],
        "it began"
    );
    let scalers = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let old = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target,
        "targetCPUUtilizationPercentage": 70}});
    plane.post(&scalers("v1"), &old).await.expect(201);
    let read = plane.get(&format!("{}/h", scalers("v2"))).await.expect(200);
    assert_eq!(read["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let back = plane.get(&scalers("v1")).await.expect(200);
    assert_eq!(back["items"][0]["spec"]["targetCPUUtilizationPercentage"], 70);
}
