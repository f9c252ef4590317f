//! Services: who serves, and the one that leads to the API.

use serde_json::{Value, json};

use crate::reconcile::Controller;
use crate::world::World;

/// Endpoints and slices show ready Pods with named and numbered target ports; they follow every change and go with
/// the Service.
#[test]
fn endpoints_follow_pods() {
    let mut world = World::new();
    let node = world.node("n1");
    let service = World::key("", "services", "default", "web");
    world.put(
        &service,
        json!({"spec": {"clusterIP": "10.96.0.5", "selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
            {"name": "raw", "port": 81, "targetPort": 9000, "protocol": "TCP"}]}}),
    );
    let pod = World::key("", "pods", "default", "web-1");
    world.put(
        &pod,
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main",
            "ports": [{"name": "http", "containerPort": 8080}]}]}, "status": {"phase": "Pending"}}),
    );
    world.settle();
    let endpoints = World::key("", "endpoints", "default", "web");
    assert_eq!(world.get(&endpoints).expect("made")["subsets"], Value::Null, "no address, no subset");
    world.run_pod(&pod, "n1");
    world.settle();
    let subset = world.get(&endpoints).expect("present")["subsets"][0].clone();
    assert_eq!(subset["addresses"][0]["ip"], "10.0.0.9");
    assert_eq!(subset["addresses"][0]["nodeName"], "n1");
    assert_eq!(subset["addresses"][0]["targetRef"]["name"], "web-1");
    let ports: Vec<&Value> = subset["ports"].as_array().expect("ports").iter().map(|port| &port["port"]).collect();
    assert_eq!(ports, [&json!(8080), &json!(9000)]);
    let (_, slice) = &world.all("discovery.k8s.io", "endpointslices")[0];
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.0.0.9"]));
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "web");

    // A silent node's Pods get no traffic.
    world.change(&node, |node| node["status"]["conditions"][0]["status"] = json!("Unknown"));
    world.settle();
    let subset = world.get(&endpoints).expect("present")["subsets"][0].clone();
    assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.0.0.9");
    assert_eq!(subset["addresses"], Value::Null);

    world.delete(&service);
    world.settle();
    assert!(world.get(&endpoints).is_none());
    assert!(world.all("discovery.k8s.io", "endpointslices").is_empty());
}

/// The Service that leads to the API comes back at its address, with a new uid; while another Service holds the address it
/// waits for that one to go.
#[test]
fn the_way_to_the_api_comes_back() {
    let mut world = World::new();
    world.settings.api_address = Some([10, 96, 0, 1].into());
    let service = World::key("", "services", "default", "kubernetes");
    let claim = World::key("internal.quilt.sh", "serviceips", "", "10.96.0.1");
    world.put(&World::key("", "namespaces", "", "default"), json!({}));
    world.settle();
    let made = world.get(&service).expect("made");
    assert_eq!(made["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(world.get(&claim).expect("held"), json!({"namespace": "default", "name": "kubernetes"}));
    assert!(world.plan(Controller::Furnish, &World::key("", "namespaces", "", "default")).writes.is_empty());
    world.delete(&claim);
    world.delete(&service);
    world.settle();
    let again = world.get(&service).expect("made again");
    assert_ne!(again["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(again["spec"], made["spec"]);
    let other = World::key("", "services", "team", "quicker");
    world.delete(&service);
    world.put(&other, json!({"spec": {"clusterIP": "10.96.0.1"}}));
    world.settle();
    assert_eq!(world.get(&service), None, "the address is another's");
    world.delete(&claim);
    world.delete(&other);
    world.settle();
    assert!(world.get(&service).is_some() && world.get(&claim).is_some());
}
