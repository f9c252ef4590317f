//! Apply over every topology, conflicts, ownership after other writes, and the properties that must hold for any object.

use proptest::prelude::{any, proptest};
use serde_json::{Value, json};

use super::{ApplyError, Force, Writer, apply, track};
use crate::kind::Kind;
use crate::registry::registry;

fn deployments() -> &'static Kind {
    registry().resource("apps", "v1", "deployments").expect("served")
}

fn pods() -> &'static Kind {
    registry().resource("", "v1", "pods").expect("served")
}

fn by(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: "", now: "2026-01-02T03:04:05Z" }
}

fn pod(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

fn owned_by(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|entry| entry["manager"] == manager).map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

/// Creating by apply records exactly what was applied, with keys, defaults of keys and item marks.
#[test]
fn ownership_is_exact() {
    let spec = json!({
        "containers": [{"name": "a", "image": "1", "args": ["x"], "ports": [{"containerPort": 80}]}],
        "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "securityContext": {}
    });
    let created = apply(pods(), None, &pod(&spec), by("me"), Force::Refuse).expect("created");
    assert_eq!(
        owned_by(&created, "me"),
        json!({"f:spec": {
            "f:containers": {"k:{\"name\":\"a\"}": {
                ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}
            }},
            "f:nodeSelector": {}, "f:tolerations": {}, "f:securityContext": {}
        }})
    );
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!((&entry["operation"], &entry["time"]), (&json!("Apply"), &json!("2026-01-02T03:04:05Z")));
    let again =
        apply(pods(), Some(&created), &pod(&spec), Writer { now: "2027-01-01T00:00:00Z", ..by("me") }, Force::Refuse);
    assert_eq!(again, Ok(created), "applying again changes nothing, times included");
}

/// What a manager stops applying goes, unless somebody else owns it or nobody ever did.
#[test]
fn what_is_no_longer_applied_goes() {
    let first = json!({
        "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}],
        "hostname": "h", "securityContext": {"runAsUser": 1}
    });
    let mut live = apply(pods(), None, &pod(&first), by("me"), Force::Refuse).expect("created");
    live["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    let other = json!({"containers": [{"name": "b", "workingDir": "/"}], "securityContext": {"runAsGroup": 2}});
    let live = apply(pods(), Some(&live), &pod(&other), by("other"), Force::Refuse).expect("no conflict");
    let second = json!({"containers": [{"name": "a", "image": "1"}]});
    let live = apply(pods(), Some(&live), &pod(&second), by("me"), Force::Refuse).expect("no conflict");
    assert_eq!(
        live["spec"],
        json!({
            "containers": [{"name": "a", "image": "1", "imagePullPolicy": "Always"}, {"name": "b", "workingDir": "/"}],
            "securityContext": {"runAsGroup": 2}
        })
    );
}

/// A field of somebody else that would change is a conflict that names manager and field; the same value is shared; force takes it.
#[test]
fn conflicts_name_manager_and_field() {
    let mine = |image: &str| pod(&json!({"containers": [{"name": "a", "image": image}]}));
    let live = apply(pods(), None, &mine("1"), by("one"), Force::Refuse).expect("created");
    let shared =
        apply(pods(), Some(&live), &mine("1"), by("two"), Force::Refuse).expect("the same value is no conflict");
    let error = apply(pods(), Some(&shared), &mine("2"), by("two"), Force::Refuse).expect_err("a conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\" using v1: .spec.containers[name=\"a\"].image"
    );
    let status = error.status().to_value();
    assert_eq!(status["code"], 409);
    assert_eq!(status["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.containers[name=\"a\"].image");
    let taken = apply(pods(), Some(&shared), &mine("2"), by("two"), Force::Take).expect("forced");
    assert_eq!(taken["spec"]["containers"][0]["image"], "2");
    let left = owned_by(&taken, "one");
    assert_eq!(left["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"], json!({".": {}, "f:name": {}}));
}

/// Atomic lists change as a whole, sets value by value, maps key by key.
#[test]
fn every_topology_merges_its_way() {
    let object = |metadata: Value, spec: Value| json!({"metadata": metadata, "spec": spec});
    let one = object(
        json!({"name": "p", "finalizers": ["a.b/c"], "labels": {"x": "1"}}),
        json!({"tolerations": [{"key": "a"}], "containers": []}),
    );
    let two = object(
        json!({"name": "p", "finalizers": ["d.e/f"], "labels": {"y": "2"}}),
        json!({"containers": [{"name": "c"}]}),
    );
    let live = apply(pods(), None, &one, by("one"), Force::Refuse).expect("created");
    let live = apply(pods(), Some(&live), &two, by("two"), Force::Refuse).expect("no conflict");
    assert_eq!(live["metadata"]["finalizers"], json!(["a.b/c", "d.e/f"]));
    assert_eq!(live["metadata"]["labels"], json!({"x": "1", "y": "2"}));
    let error =
        apply(pods(), Some(&live), &object(json!({"name": "p"}), json!({"tolerations": []})), by("two"), Force::Refuse);
    assert!(matches!(error, Err(ApplyError::Conflicts(all)) if all.len() == 1 && all[0].field == ".spec.tolerations"));
    let less = object(json!({"name": "p", "labels": {"y": "2"}}), json!({"containers": [{"name": "c"}]}));
    let live = apply(pods(), Some(&live), &less, by("two"), Force::Refuse).expect("no conflict");
    assert_eq!(live["metadata"]["finalizers"], json!(["a.b/c"]));
}

/// Other writes are recorded too, take what they change, and give up what they remove.
#[test]
fn updates_move_ownership() {
    let wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1, "paused": true}});
    let live = apply(deployments(), None, &wanted, by("me"), Force::Refuse).expect("created");
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(3);
    scaled["spec"].as_object_mut().expect("an object").remove("paused");
    track(deployments(), Some(&live), &mut scaled, by("scaler"));
    assert_eq!(owned_by(&scaled, "me"), Value::Null);
    assert_eq!(owned_by(&scaled, "scaler"), json!({"f:spec": {"f:replicas": {}}}));
    let error = apply(deployments(), Some(&scaled), &wanted, by("me"), Force::Refuse).expect_err("a conflict");
    assert!(error.to_string().contains("conflict with \"scaler\" using apps/v1: .spec.replicas"), "{error}");
    let mut same = scaled.clone();
    track(deployments(), Some(&scaled), &mut same, Writer { now: "2027-01-01T00:00:00Z", ..by("scaler") });
    assert_eq!(same, scaled, "a write that changes nothing changes no record");
    let mut reset = scaled.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track(deployments(), Some(&scaled), &mut reset, by("me"));
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

/// Fields set before any record belong to one manager; a status write owns nothing of the spec and an apply nothing of the status.
#[test]
fn old_fields_and_parts_have_their_owners() {
    let live = json!({"metadata": {"name": "d", "uid": "u"}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let wanted = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2}});
    let error = apply(deployments(), Some(&live), &wanted, by("me"), Force::Refuse).expect_err("a conflict");
    assert!(error.to_string().contains("\"before-first-apply\""), "{error}");
    let mut next = live.clone();
    next["status"]["replicas"] = json!(2);
    track(deployments(), Some(&live), &mut next, Writer { subresource: "status", ..by("controller") });
    assert_eq!(owned_by(&next, "controller"), json!({"f:status": {"f:replicas": {}}}));
    assert_eq!(next["metadata"]["managedFields"][0]["subresource"], "status");
}

/// Refusals: no manager, records in the applied object, items without keys, two items with one key.
#[test]
fn malformed_applies_are_refused() {
    let refuse = |object: Value, manager: &str| {
        apply(pods(), None, &object, by(manager), Force::Refuse).expect_err("refused").status().code()
    };
    assert_eq!(refuse(pod(&json!({})), ""), 400);
    assert_eq!(refuse(json!({"metadata": {"managedFields": []}}), "me"), 400);
    assert_eq!(refuse(pod(&json!({"containers": [{"image": "1"}]})), "me"), 400);
    assert_eq!(refuse(pod(&json!({"containers": [{"name": "1"}, {"name": "1"}]})), "me"), 400);
}

/// The number of records stays bounded however many managers write.
#[test]
fn records_are_bounded() {
    let mut live = json!({"metadata": {"name": "p", "labels": {}}, "spec": {}});
    for n in 0..40 {
        let mut next = live.clone();
        next["metadata"]["labels"][format!("l{n}")] = json!("x");
        let (manager, now) = (format!("m{n}"), format!("2026-01-02T03:04:{n:02}Z"));
        track(pods(), Some(&live), &mut next, Writer { manager: &manager, subresource: "", now: &now });
        live = next;
    }
    let entries = live["metadata"]["managedFields"].as_array().expect("records");
    assert_eq!(entries.len(), 10);
    assert!(entries.iter().any(|entry| entry["manager"] == "ancient-changes"));
    assert!(!owned_by(&live, "m39").is_null());
}

fn spec(seed: u8) -> Value {
    let mut spec =
        json!({"containers": [{"name": if seed & 1 == 0 { "a" } else { "b" }, "image": (seed >> 1 & 1).to_string()}]});
    if seed & 4 != 0 {
        spec["nodeSelector"] = json!({"k": "v", "l": (seed >> 3 & 1).to_string()});
    }
    if seed & 16 != 0 {
        spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    }
    if seed & 32 != 0 {
        spec["tolerations"] = json!([{"key": (seed >> 6).to_string()}]);
    }
    spec
}

proptest! {
    /// Whatever two managers apply by turns: applying twice is applying once, what was applied is there, and once both apply nothing
    /// of a kind of field, it is gone.
    #[test]
    fn apply_is_idempotent_and_complete(turns in proptest::collection::vec((any::<bool>(), any::<u8>()), 1..8)) {
        let mut live: Option<Value> = None;
        for (first, seed) in turns {
            let wanted = pod(&spec(seed));
            let writer = by(if first { "one" } else { "two" });
            let next = apply(pods(), live.as_ref(), &wanted, writer, Force::Take).expect("forced");
            let again = apply(pods(), Some(&next), &wanted, writer, Force::Refuse).expect("own fields never conflict");
            assert_eq!(again, next);
            let container = &wanted["spec"]["containers"][0];
            let found = next["spec"]["containers"].as_array().expect("a list").iter().find(|item| item["name"] == container["name"]);
            assert_eq!(found, Some(container));
            live = Some(next);
        }
        let mut live = live.expect("one turn at least");
        for manager in ["one", "two"] {
            live = apply(pods(), Some(&live), &json!({"metadata": {"name": "p"}}), by(manager), Force::Refuse).expect("nothing to conflict");
        }
        assert_eq!(live.get("spec"), None);
        assert_eq!(live["metadata"].get("managedFields"), None);
    }
}
