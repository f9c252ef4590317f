//! What clients are told when history no longer reaches back as far as they ask.

use quilt_proto::{ClusterId, Revision};
use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, Plane, config_map};

const MERGE: &str = "application/merge-patch+json";

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("a version")
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

impl Plane {
    /// Lets go of all history before the present.
    async fn compact(&self) {
        let list = self.get(CONFIG_MAPS).await.expect(200);
        let floor = Revision::new(version(&list).parse().expect("a number"));
        self.replica.admin().compact(&ClusterId::built_in(), floor).await.expect("compacted");
    }
}

/// A list whose snapshot is gone between two pages answers 410 with a token that goes on behind the same key at the
/// present state; the rest of the list comes by that token.
#[tokio::test]
async fn a_list_goes_on_after_its_snapshot_is_gone() {
    let plane = Plane::start().await;
    for name in ["a", "b", "c", "d"] {
        plane.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    let first = plane.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    plane.post(CONFIG_MAPS, &config_map("cc")).await.expect(201);
    let rest = plane.get(&format!("{CONFIG_MAPS}?limit=9&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["c", "d"], "the snapshot of the first page");
    plane.compact().await;
    let gone = plane.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.refusal(410, "Expired");
    assert!(
        gone["message"].as_str().is_some_and(|text| text.starts_with("The provided continue parameter is too old"))
    );
    let fresh = gone["metadata"]["continue"].as_str().expect("a fresh token").to_owned();
    assert_ne!(fresh, token);
    let page = plane.get(&format!("{CONFIG_MAPS}?limit=2&continue={fresh}")).await.expect(200);
    assert_eq!(names(&page), ["c", "cc"], "the present state, behind what was given out");
    let next = page["metadata"]["continue"].as_str().expect("a token");
    let last = plane.get(&format!("{CONFIG_MAPS}?limit=2&continue={next}")).await.expect(200);
    assert_eq!(names(&last), ["d"]);
    assert_eq!(version(&last), version(&page), "from there on one snapshot again");
    assert_eq!(last["metadata"]["continue"], Value::Null);
}

/// An exact list of a version that is gone answers 410; one that is not older than it answers the present.
#[tokio::test]
async fn exact_lists_expire() {
    let plane = Plane::start().await;
    let old = plane.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    plane.post(CONFIG_MAPS, &config_map("b")).await.expect(201);
    let exact = format!("{CONFIG_MAPS}?resourceVersionMatch=Exact&resourceVersion={}", version(&old));
    assert_eq!(names(&plane.get(&exact).await.expect(200)), ["a"]);
    plane.compact().await;
    let gone = plane.get(&exact).await.refusal(410, "Expired");
    assert_eq!(gone["message"], "The resourceVersion for the provided list is too old.");
    assert_eq!(gone["metadata"], json!({}), "there is nothing to go on from");
    let newer = format!("{CONFIG_MAPS}?resourceVersionMatch=NotOlderThan&resourceVersion={}", version(&old));
    assert_eq!(names(&plane.get(&newer).await.expect(200)), ["a", "b"]);
}

/// A watch from a version that is gone is told so by its first event, a Status of code 410 and reason Expired, and
/// ends: what reflectors take as the sign to list anew. One from a version that is still there goes on.
#[tokio::test]
async fn watches_from_before_history_end() {
    let plane = Plane::start().await;
    let old = plane.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let patched = plane.patch(&format!("{CONFIG_MAPS}/a"), MERGE, &json!({"data": {"a": "c"}})).await.expect(200);
    plane.compact().await;
    let mut watch = plane.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&old))).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["type"], "ERROR");
    let status = &event["object"];
    assert_eq!((&status["kind"], &status["apiVersion"]), (&json!("Status"), &json!("v1")));
    assert_eq!(
        (&status["status"], &status["code"], &status["reason"]),
        (&json!("Failure"), &json!(410), &json!("Expired"))
    );
    let asked = format!("too old resource version: {} (", version(&old));
    assert!(status["message"].as_str().is_some_and(|text| text.starts_with(&asked)), "{status}");
    assert!(watch.ends().await, "the stream ends behind the error");
    let mut going = plane.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&patched))).await;
    plane.post(CONFIG_MAPS, &config_map("b")).await.expect(201);
    assert_eq!(going.named().await, ("ADDED".to_owned(), "b".to_owned()));
}
