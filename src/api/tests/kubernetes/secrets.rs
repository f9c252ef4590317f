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

/// What `kubectl apply` writes into an annotation, the whole manifest, is sealed with the data it repeats; readers see it
/// where it belongs, and a Secret whose data is gone keeps it sealed.
#[tokio::test]
async fn applied_manifests_are_sealed() {
    let plane = Plane::start().await;
    let applied = "kubectl.kubernetes.io/last-applied-configuration";
    let manifest = json!({"stringData": {"password": "hunter2"}}).to_string();
    let annotations = json!({applied: manifest, "note": "plain"});
    let secret = json!({"metadata": {"name": "s", "annotations": annotations}, "stringData": {"password": "hunter2"}});
    let created = plane.post(SECRETS, &secret).await.expect(201);
    assert_eq!(created["metadata"]["annotations"], annotations);
    let stored = async || {
        let view = plane.replica.read(Consistency::Linearizable, Duration::from_secs(5)).await.expect("a view");
        let key = Key::new("default", "", "secrets", "default", "s").expect("a key");
        String::from_utf8_lossy(&view.get(&key).expect("read").expect("there").value).into_owned()
    };
    let text = stored().await;
    assert!(text.contains("\"note\":\"plain\"") && !text.contains("hunter2") && !text.contains(applied), "{text}");
    let path = format!("{SECRETS}/s");
    assert_eq!(plane.get(&path).await.expect(200), created);
    assert_eq!(plane.get(SECRETS).await.expect(200)["items"][0]["metadata"]["annotations"], annotations);
    let meta = plane.get_as(&path, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(meta["metadata"]["annotations"], annotations);
    assert_eq!(plane.put(&path, &created).await.expect(200), created, "nothing would change");
    let merge = "application/merge-patch+json";
    let emptied = plane.patch(&path, merge, &json!({"data": null})).await.expect(200);
    assert_eq!(emptied["metadata"]["annotations"], annotations);
    assert!(!stored().await.contains("hunter2"));
    let none = json!({"metadata": {"annotations": {applied: null}}});
    let cleared = plane.patch(&path, merge, &none).await.expect(200);
    assert_eq!(cleared["metadata"]["annotations"], json!({"note": "plain"}));
}

/// An immutable ConfigMap or Secret keeps its data and the mark through every way of writing; its metadata may change,
/// and it may be deleted. One that is not immutable yet may become it.
#[tokio::test]
async fn immutable_data_stays() {
    let plane = Plane::start().await;
    let merge = "application/merge-patch+json";
    for (resource, before, after) in [("configmaps", "a", "b"), ("secrets", "YQ==", "Yg==")] {
        let list = format!("/api/v1/namespaces/default/{resource}");
        let object = json!({"metadata": {"name": "fixed"}, "data": {"k": before}});
        plane.post(&list, &object).await.expect(201);
        let path = format!("{list}/fixed");
        let frozen = plane.patch(&path, merge, &json!({"immutable": true})).await.expect(200);
        for change in [
            json!({"data": {"k": after}}),
            json!({"data": {"more": before}}),
            json!({"data": null}),
            json!({"immutable": false}),
            json!({"immutable": null}),
        ] {
            let refused = plane.patch(&path, merge, &change).await.refusal(422, "Invalid");
            let words = refused["message"].as_str().expect("words");
            assert!(words.contains("field is immutable when `immutable` is set"), "{change}: {words}");
        }
        let mut whole = frozen.clone();
        whole["data"] = json!({"k": after});
        plane.put(&path, &whole).await.refusal(422, "Invalid");
        assert_eq!(plane.get(&path).await.expect(200), frozen, "nothing was stored");
        let labelled = plane.patch(&path, merge, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
        assert_eq!((&labelled["data"], &labelled["immutable"]), (&json!({"k": before}), &json!(true)));
        plane.delete(&path, &json!(null)).await.expect(200);
    }
}
