//! Services take addresses and ports in the transaction that writes them, and give them back with it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::Plane;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, kind: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": kind, "selector": {"a": "b"},
        "ports": [{"name": "web", "port": 80}, {"name": "tls", "port": 443}]}})
}

/// Every Service gets its own address of the range; types add node ports and a load-balancer address.
#[tokio::test]
async fn addresses_are_taken() {
    let plane = Plane::start().await;
    let mut addresses = BTreeSet::new();
    for n in 0..20 {
        let created = plane.post(SERVICES, &service(&format!("s{n}"), "ClusterIP")).await.expect(201);
        let ip = created["spec"]["clusterIP"].as_str().expect("an address").to_owned();
        assert!(ip.starts_with("10.9") || ip.starts_with("10.1"), "{ip}");
        assert_eq!(created["spec"]["clusterIPs"], json!([ip]));
        assert!(addresses.insert(ip));
    }
    let balanced = plane.post(SERVICES, &service("lb", "LoadBalancer")).await.expect(201);
    let ports: BTreeSet<i64> = balanced["spec"]["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .filter_map(|port| port["nodePort"].as_i64())
        .collect();
    assert_eq!(ports.len(), 2);
    assert!(ports.iter().all(|port| (30000..=32767).contains(port)));
    let address = balanced["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().expect("an address");
    assert!(address.starts_with("203.0.113."));
    let headless = json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    assert_eq!(plane.post(SERVICES, &headless).await.expect(201)["spec"]["clusterIP"], "None");
}

/// A taken address or one outside the range is refused; a dry run takes nothing; a deleted Service gives back.
#[tokio::test]
async fn addresses_are_given_back() {
    let plane = Plane::start().await;
    let mut fixed = service("a", "NodePort");
    fixed["spec"]["clusterIP"] = json!("10.96.0.50");
    fixed["spec"]["ports"][0]["nodePort"] = json!(30080);
    plane.post(&format!("{SERVICES}?dryRun=All"), &fixed).await.expect(201);
    plane.post(SERVICES, &fixed).await.expect(201);
    let mut second = fixed.clone();
    second["metadata"]["name"] = json!("b");
    let refused = plane.post(SERVICES, &second).await.refusal(422, "Invalid");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("already allocated")), "{refused}");
    let mut outside = service("o", "ClusterIP");
    outside["spec"]["clusterIP"] = json!("192.0.2.1");
    plane.post(SERVICES, &outside).await.refusal(422, "Invalid");
    plane.delete(&format!("{SERVICES}/a"), &Value::Null).await.expect(200);
    let created = plane.post(SERVICES, &second).await.expect(201);
    assert_eq!(
        (&created["spec"]["clusterIP"], &created["spec"]["ports"][0]["nodePort"]),
        (&json!("10.96.0.50"), &json!(30080))
    );
}

/// An update keeps what was allocated, and a type that needs no ports gives them back.
#[tokio::test]
async fn updates_keep_and_release() {
    let plane = Plane::start().await;
    let created = plane.post(SERVICES, &service("s", "NodePort")).await.expect(201);
    let path = format!("{SERVICES}/s");
    let replaced = plane.put(&path, &service("s", "NodePort")).await.expect(200);
    assert_eq!(replaced["spec"]["clusterIP"], created["spec"]["clusterIP"]);
    assert_eq!(replaced["spec"]["ports"], created["spec"]["ports"]);
    let port = created["spec"]["ports"][0]["nodePort"].clone();
    let merge = "application/merge-patch+json";
    let plain = plane.patch(&path, merge, &json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    assert_eq!(plain["spec"]["ports"][0]["nodePort"], Value::Null);
    let mut next = service("t", "NodePort");
    next["spec"]["ports"][0]["nodePort"] = port.clone();
    assert_eq!(plane.post(SERVICES, &next).await.expect(201)["spec"]["ports"][0]["nodePort"], port);
}
