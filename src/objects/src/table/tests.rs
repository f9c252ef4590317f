//! Rows as `kubectl get` shows them.

use serde_json::{Value, json};

use super::{Definitions, IncludeObject, Shown, row, table};
use crate::kind::Kind;
use crate::registry::registry;

const NOW_MS: u64 = 1_000_000_000;

fn kind(group: &str, version: &str, name: &str) -> &'static Kind {
    registry().kind(group, version, name).expect("a built-in kind")
}

/// The cells that are always shown, as one line.
fn line(kind: &Kind, object: &Value) -> String {
    let columns = crate::hooks::of(kind).printer.columns;
    let row = row(kind, object, NOW_MS, IncludeObject::None);
    let cells = row["cells"].as_array().expect("cells");
    let shown = columns.iter().zip(cells).filter(|(column, _)| column.shown == Shown::Always);
    let texts: Vec<String> =
        shown.map(|(_, cell)| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect();
    texts.join(" | ")
}

fn pod(spec: &Value, status: &Value) -> Value {
    json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-12T13:41:40Z"}, "spec": spec, "status": status})
}

/// The status of a pod is the word that tells most.
#[test]
fn pods() {
    let one = json!({"containers": [{"name": "c"}]});
    let two = json!({"containers": [{"name": "c"}, {"name": "d"}]});
    let init = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let sidecar = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]});
    let running = json!({"name": "c", "ready": true, "state": {"running": {}}});
    let restarted = json!({"name": "c", "ready": true, "restartCount": 3, "state": {"running": {}},
        "lastState": {"terminated": {"finishedAt": "1970-01-12T13:41:40Z"}}});
    let table = [
        (&one, json!({"phase": "Pending"}), "a | 0/1 | Pending | 0 | 5m"),
        (&one, json!({"phase": "Running", "containerStatuses": [running]}), "a | 1/1 | Running | 0 | 5m"),
        (&one, json!({"phase": "Running", "containerStatuses": [restarted]}), "a | 1/1 | Running | 3 (5m ago) | 5m"),
        (
            &one,
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            "a | 0/1 | ImagePullBackOff | 0 | 5m",
        ),
        (
            &one,
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]}),
            "a | 0/1 | Completed | 0 | 5m",
        ),
        (
            &one,
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            "a | 0/1 | ExitCode:3 | 0 | 5m",
        ),
        (&one, json!({"phase": "Failed", "reason": "Evicted"}), "a | 0/1 | Evicted | 0 | 5m"),
        (
            &two,
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}, running]}),
            "a | 1/2 | NotReady | 0 | 5m",
        ),
        (
            &init,
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}),
            "a | 0/1 | Init:1/2 | 0 | 5m",
        ),
        (
            &init,
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "a | 0/1 | Init:CrashLoopBackOff | 2 | 5m",
        ),
        (
            &sidecar,
            json!({"phase": "Running", "containerStatuses": [running],
                "initContainerStatuses": [{"name": "i", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}}]}),
            "a | 2/2 | Running | 1 | 5m",
        ),
        (
            &one,
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "a | 0/1 | SchedulingGated | 0 | 5m",
        ),
    ];
    let pods = kind("", "v1", "Pod");
    for (spec, status, expected) in table {
        assert_eq!(line(pods, &pod(spec, &status)), expected, "{status}");
    }
    let mut going = pod(&one, &json!({"phase": "Running", "containerStatuses": [running]}));
    going["metadata"]["deletionTimestamp"] = json!("1970-01-12T13:41:40Z");
    assert_eq!(line(pods, &going), "a | 1/1 | Terminating | 0 | 5m");
    going["status"]["reason"] = json!("NodeLost");
    assert_eq!(line(pods, &going), "a | 1/1 | Unknown | 0 | 5m");
}

/// One line of the other kinds that people look at most.
#[test]
fn lines() {
    let meta = json!({"name": "a", "creationTimestamp": "1970-01-12T13:41:40Z"});
    let table = [
        (
            kind("apps", "v1", "Deployment"),
            json!({"spec": {"replicas": 3}, "status": {"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}}),
            "a | 2/3 | 1 | 2 | 5m",
        ),
        (
            kind("apps", "v1", "ReplicaSet"),
            json!({"spec": {"replicas": 3}, "status": {"replicas": 2}}),
            "a | 3 | 2 | 0 | 5m",
        ),
        (
            kind("", "v1", "Service"),
            json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]}}),
            "a | NodePort | 10.0.0.1 | <none> | 80:30080/TCP,53/UDP | 5m",
        ),
        (
            kind("", "v1", "Service"),
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}),
            "a | LoadBalancer | 10.0.0.1 | 203.0.113.1 | <none> | 5m",
        ),
        (
            kind("", "v1", "Node"),
            json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-12T13:41:40Z", "labels": {"node-role.kubernetes.io/worker": ""}},
                "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}}}),
            "a | Ready,SchedulingDisabled | worker | 5m | v1",
        ),
        (kind("", "v1", "ConfigMap"), json!({"data": {"a": "1"}, "binaryData": {"b": ""}}), "a | 2 | 5m"),
        (kind("", "v1", "Secret"), json!({"type": "Opaque", "data": {"a": "1"}}), "a | Opaque | 1 | 5m"),
        (kind("", "v1", "Namespace"), json!({"status": {"phase": "Active"}}), "a | Active | 5m"),
        (
            kind("batch", "v1", "Job"),
            json!({"spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": "1970-01-12T13:45:40Z"}}),
            "a | Running | 1/3 | 60s | 5m",
        ),
        (
            kind("", "v1", "Event"),
            json!({"type": "Warning", "reason": "FailedScheduling", "message": "no\n", "involvedObject": {"kind": "Pod", "name": "p"},
                "lastTimestamp": "1970-01-12T13:46:30Z", "count": 4}),
            "10s | Warning | FailedScheduling | pod/p | no",
        ),
        (
            kind("", "v1", "Endpoints"),
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]}),
            "a | 1.1.1.1:80,1.1.1.1:81,1.1.1.2:80 + 1 more... | 5m",
        ),
        (
            kind("quilt.sh", "v1", "Workload"),
            json!({"spec": {"replicas": 3, "name": "web"}, "status": {"running": 2, "pending": 1}}),
            "a | 2/3 | 1 | 0 | 5m",
        ),
    ];
    for (kind, mut object, expected) in table {
        if object.get("metadata").is_none() {
            object["metadata"] = meta.clone();
        }
        assert_eq!(line(kind, &object), expected);
    }
}

/// The headings of the kinds people look at most are those of Kubernetes, word for word and in its order, with what only
/// `-o wide` shows behind the bar.
#[test]
fn headings() {
    let table = [
        (kind("", "v1", "Pod"), "Name Ready Status Restarts Age | IP, Node, Nominated Node, Readiness Gates"),
        (kind("apps", "v1", "Deployment"), "Name Ready Up-to-date Available Age | Containers, Images, Selector"),
        (
            kind("", "v1", "Node"),
            "Name Status Roles Age Version | Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime",
        ),
        (kind("", "v1", "Service"), "Name Type Cluster-IP External-IP Port(s) Age | Selector"),
        (kind("apps", "v1", "ReplicaSet"), "Name Desired Current Ready Age | Containers, Images, Selector"),
        (kind("policy", "v1", "PodDisruptionBudget"), "Name Min Available Max Unavailable Allowed Disruptions Age | "),
    ];
    for (kind, expected) in table {
        let columns = crate::hooks::of(kind).printer.columns;
        let names = |shown: Shown| columns.iter().filter(move |column| column.shown == shown).map(|column| column.name);
        let always: Vec<&str> = names(Shown::Always).collect();
        let wide: Vec<&str> = names(Shown::Wide).collect();
        assert_eq!(format!("{} | {}", always.join(" "), wide.join(", ")), expected);
    }
}

/// Every kind has columns, a cell for each whatever the object looks like, and carries what was asked for.
#[test]
fn every_kind_has_a_table() {
    for kind in registry().kinds() {
        let columns = crate::hooks::of(kind).printer.columns;
        assert!(!columns.is_empty());
        for object in [json!({}), json!({"metadata": [], "spec": 1, "status": {"conditions": [1]}}), json!(null)] {
            let row = row(kind, &object, NOW_MS, IncludeObject::Metadata);
            assert_eq!(row["cells"].as_array().map(Vec::len), Some(columns.len()), "{}", kind.kind);
            assert_eq!(row["object"]["kind"], json!("PartialObjectMetadata"));
        }
    }
    let pods = kind("", "v1", "Pod");
    let shown = table(pods, Definitions::Shown, json!({"resourceVersion": "5"}), vec![]);
    assert_eq!(
        shown["columnDefinitions"][0],
        json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": super::NAME.description})
    );
    assert_eq!(table(pods, Definitions::Omitted, json!({}), vec![])["columnDefinitions"], json!([]));
    assert_eq!(row(pods, &json!({"a": 1}), NOW_MS, IncludeObject::Object)["object"], json!({"a": 1}));
    assert_eq!(IncludeObject::parse("Some"), None);
}
