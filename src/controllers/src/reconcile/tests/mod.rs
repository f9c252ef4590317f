//! What the controllers do together and one by one, over a cluster in memory. Plans print like diffs.

mod deployment;
mod lifecycle;
pub(crate) mod museum;
mod service;
mod workload;

use quilt_proto::Key;
use serde_json::{Value, json};

use crate::world::World;

fn deployment(world: &mut World, replicas: i64, image: &str, rolling: &Value) -> Key {
    let key = World::key("apps", "deployments", "default", "web");
    world.put(
        &key,
        json!({"metadata": {"generation": 1}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]}},
        }}),
    );
    key
}

fn set_image(world: &mut World, key: &Key, image: &str) {
    world.change(key, |object| {
        object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        let generation = object["metadata"]["generation"].as_i64().expect("a generation");
        object["metadata"]["generation"] = json!(generation + 1);
    });
}

fn active(world: &World) -> usize {
    world.cluster.resource("", "pods", "").filter(|pod| pod.is_active_pod()).count()
}

fn ready(world: &World) -> usize {
    let pods = world.cluster.resource("", "pods", "");
    pods.filter(|pod| pod.is_active_pod() && pod.pod().is_some_and(|pod| pod.ready_since.is_some())).count()
}

fn status(world: &World, key: &Key) -> Value {
    world.get(key).expect("present")["status"].clone()
}

fn condition(world: &World, key: &Key, kind: &str) -> (String, String) {
    let object = world.get(key).expect("present");
    let condition = crate::fields::condition(&object, kind).expect("a condition");
    (condition["status"].as_str().expect("text").into(), condition["reason"].as_str().expect("text").into())
}

fn workload(world: &mut World, replicas: i64) -> Key {
    let key = World::key("quilt.sh", "workloads", "default", "job");
    world.put(
        &key,
        json!({"metadata": {"generation": 1}, "spec": {"name": "job", "replicas": replicas, "command": ["/bin/job"],
            "environment": {"MODE": "live"}, "memory_limit_mb": 64, "cpu_limit_percent": 50}}),
    );
    key
}

fn slots(world: &World, key: &Key) -> Vec<(i64, String, String)> {
    let status = status(world, key);
    let slots = status["slots"].as_array().expect("slots").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    slots
        .map(|slot| (slot["index"].as_i64().expect("int"), text(&slot["placementId"]), text(&slot["podName"])))
        .collect()
}

fn condition_of_node(world: &World, node: &Key) -> String {
    condition_text(&world.get(node).expect("present"))
}

fn condition_text(node: &Value) -> String {
    crate::fields::condition(node, "Ready").expect("a condition")["status"].as_str().expect("text").to_owned()
}
