//! Secret data is sealed before it enters the log, and opened only for readers.

use std::time::Duration;

use quilt_proto::Key;
use quilt_raft::Consistency;
use serde_json::json;

use crate::support::Plane;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// What is stored holds no plain data; get, list, watch and no-change see the opened form.
#[tokio::test]
async fn data_is_sealed_at_rest() {
    let plane = Plane::start().await;
    let mut watch = plane.watch(&format!("{SECRETS}?watch=true")).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    let created = plane.post(SECRETS, &secret).await.expect(201);
    assert_eq!(created["data"], json!({"password": "aHVudGVyMg=="}));
    let view = plane.replica.read(Consistency::Linearizable, Duration::from_secs(5)).await.expect("a view");
    let key = Key::new("default", "", "secrets", "default", "s").expect("a key");
    let record = view.get(&key).expect("read").expect("there");
    let text = String::from_utf8_lossy(&record.value).into_owned();
    assert!(!text.contains("aHVudGVyMg") && !text.contains("hunter2") && !text.contains("\"data\""), "{text}");
    assert!(!record.sealed.is_empty());
    assert!(!String::from_utf8_lossy(&record.sealed).contains("aHVudGVyMg"));
    let path = format!("{SECRETS}/s");
    assert_eq!(plane.get(&path).await.expect(200), created);
    assert_eq!(plane.get(SECRETS).await.expect(200)["items"][0]["data"], created["data"]);
    let event = watch.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["data"]), (&json!("ADDED"), &created["data"]));
    let same = plane.put(&path, &created).await.expect(200);
    assert_eq!(same, created, "the same data under a fresh key would be a change; it is judged opened");
    let merge = "application/merge-patch+json";
    let changed = plane.patch(&path, merge, &json!({"data": {"more": "eA=="}})).await.expect(200);
    assert_eq!(changed["data"], json!({"password": "aHVudGVyMg==", "more": "eA=="}));
    let meta = plane.get_as(&path, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(meta["data"], json!(null));
    plane
        .post(SECRETS, &json!({"metadata": {"name": "b"}, "data": {"x": "not base64!"}}))
        .await
        .refusal(400, "BadRequest");
}
