//! Lists: pages of one snapshot, selectors, versions, forms.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, PODS, Plane, config_map, pod};

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Pages together are the snapshot of the first page, whatever is written meanwhile.
#[tokio::test]
async fn pages_are_of_one_snapshot() {
    let plane = Plane::start().await;
    for n in 0..25 {
        plane.post(CONFIG_MAPS, &config_map(&format!("m{n:02}"))).await.expect(201);
    }
    let mut page = plane.get(&format!("{CONFIG_MAPS}?limit=10")).await.expect(200);
    let version = page["metadata"]["resourceVersion"].clone();
    assert_eq!(page["metadata"]["remainingItemCount"], 15);
    let mut all = names(&page);
    plane.post(CONFIG_MAPS, &config_map("m99")).await.expect(201);
    plane.delete(&format!("{CONFIG_MAPS}/m20"), &Value::Null).await.expect(200);
    while let Some(token) = page["metadata"]["continue"].as_str().map(str::to_owned) {
        page = plane.get(&format!("{CONFIG_MAPS}?limit=10&continue={token}")).await.expect(200);
        assert_eq!(page["metadata"]["resourceVersion"], version);
        all.extend(names(&page));
    }
    let expected: Vec<String> = (0..25).map(|n| format!("m{n:02}")).collect();
    assert_eq!(all, expected);
    let exact =
        format!("{CONFIG_MAPS}?resourceVersion={}&resourceVersionMatch=Exact", version.as_str().unwrap_or_default());
    assert_eq!(names(&plane.get(&exact).await.expect(200)), expected);
    assert_eq!(names(&plane.get(CONFIG_MAPS).await.expect(200)).len(), 25);
    let exactly = plane.get(&format!("{CONFIG_MAPS}?limit=25")).await.expect(200);
    assert_eq!(exactly["metadata"]["continue"], Value::Null, "a page that ends the list has no token");
}

/// Label and field selectors, in one namespace and across all.
#[tokio::test]
async fn selectors_choose() {
    let plane = Plane::start().await;
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n1"), ("d", "")] {
        let mut pod = pod(name);
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        plane.post(PODS, &pod).await.expect(201);
    }
    let cases = [
        ("labelSelector=app%3Da", vec!["a"]),
        ("labelSelector=app%20in%20(a,b)", vec!["a", "b"]),
        ("labelSelector=app!%3Da", vec!["b", "c", "d"]),
        ("labelSelector=app,app!%3Dd", vec!["a", "b", "c"]),
        ("fieldSelector=spec.nodeName%3Dn1", vec!["a", "c"]),
        ("fieldSelector=spec.nodeName%3D", vec!["d"]),
        ("fieldSelector=spec.nodeName!%3Dn1", vec!["b", "d"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db&labelSelector=app", vec!["a", "c", "d"]),
        ("fieldSelector=status.phase%3DPending&labelSelector=app%3Dc", vec!["c"]),
    ];
    for (query, expected) in cases {
        for collection in [PODS, "/api/v1/pods"] {
            let list = plane.get(&format!("{collection}?{query}")).await.expect(200);
            assert_eq!(names(&list), expected, "{collection}?{query}");
        }
    }
}

/// Reads at versions: any, not older than, exactly, and one this replica has not reached.
#[tokio::test]
async fn versions_of_reads() {
    let plane = Plane::start().await;
    let created = plane.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let version: u64 =
        created["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a number");
    plane.get(&format!("{CONFIG_MAPS}/a?resourceVersion=0")).await.expect(200);
    plane.get(&format!("{CONFIG_MAPS}/a?resourceVersion={version}")).await.expect(200);
    let ahead = plane.get(&format!("{CONFIG_MAPS}?resourceVersion={}", version + 1000)).await;
    assert_eq!(ahead.headers["retry-after"], "1");
    let ahead = ahead.refusal(504, "Timeout");
    assert_eq!(ahead["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    plane.get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact&resourceVersion=0")).await.refusal(422, "Invalid");
}

/// Tables, metadata only, YAML; and what cannot be served.
#[tokio::test]
async fn forms() {
    let plane = Plane::start().await;
    plane.post(PODS, &pod("p")).await.expect(201);
    let table = plane.get_as(&format!("{PODS}/p"), "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = plane.get_as(PODS, partial).await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!((&list["items"][0]["kind"], &list["items"][0]["spec"]), (&json!("PartialObjectMetadata"), &Value::Null));
    let yaml = plane.get_as(&format!("{PODS}/p"), "application/yaml").await;
    assert!(String::from_utf8_lossy(&yaml.bytes).contains("kind: Pod"));
    plane.get_as(PODS, "application/cbor").await.refusal(406, "NotAcceptable");
}
