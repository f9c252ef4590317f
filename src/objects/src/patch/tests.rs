//! Patches on real kinds: the well-known cases of each form, and what is refused.

use serde_json::{Value, json};

use super::{PatchError, PatchType, apply, strategic};
use crate::decode::{FieldValidation, MAX_VALUES};
use crate::kind::Kind;
use crate::registry::registry;

fn kind(group: &str, plural: &str) -> &'static Kind {
    registry().resource(group, "v1", plural).expect("served")
}

#[expect(clippy::needless_pass_by_value, reason = "the tests read better with literals")]
fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

fn patched(patch_type: PatchType, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (group, plural) = match object["kind"].as_str() {
        Some("Pod") => ("", "pods"),
        Some("Service") => ("", "services"),
        Some("ConfigMap") => ("", "configmaps"),
        _ => ("apps", "deployments"),
    };
    apply(kind(group, plural), patch_type, object, patch.to_string().as_bytes(), FieldValidation::Warn)
        .map(|done| done.object)
}

/// Strategic merges on a Pod's spec: each row is a spec, a patch of it and the spec that results.
#[test]
fn strategic_merge_of_pod_specs() {
    let check = |name: &str, spec: Value, patch: Value, wanted: Value| {
        let result = patched(PatchType::Strategic, &pod(spec), &json!({"spec": patch}));
        assert_eq!(result.map(|object| object["spec"].clone()), Ok(wanted), "{name}");
    };
    check(
        "containers merge by name, what only the server knows keeps its place",
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}),
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}),
    );
    check(
        "an order decides",
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "s"}]}),
        json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]}),
        json!({"containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}, {"name": "s"}]}),
    );
    check(
        "an order alone reorders",
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a"}]}),
    );
    check(
        "a deleted item goes",
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    check(
        "a replace item makes the patch all there is",
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    check(
        "ports merge by containerPort, the protocol decides between equals",
        json!({"containers": [{"name": "a", "ports": [
            {"containerPort": 53, "protocol": "TCP", "name": "t"}, {"containerPort": 53, "protocol": "UDP", "name": "u"}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 53, "protocol": "UDP", "name": "v"}, {"containerPort": 80}]}]}),
        json!({"containers": [{"name": "a", "ports": [
            {"containerPort": 53, "protocol": "TCP", "name": "t"}, {"containerPort": 53, "protocol": "UDP", "name": "v"},
            {"containerPort": 80}]}]}),
    );
    check(
        "environment merges by name, null removes a member",
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": null, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]}),
        json!({"containers": [{"name": "a", "env": [
            {"name": "X", "value": "1"}, {"name": "Y", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]}),
    );
    check(
        "args are a list without a strategy and are replaced",
        json!({"containers": [{"name": "a", "args": ["1", "2"]}]}),
        json!({"containers": [{"name": "a", "args": ["3"]}]}),
        json!({"containers": [{"name": "a", "args": ["3"]}]}),
    );
    check(
        "tolerations are atomic",
        json!({"tolerations": [{"key": "a", "operator": "Exists"}]}),
        json!({"tolerations": [{"key": "b", "operator": "Exists"}]}),
        json!({"tolerations": [{"key": "b", "operator": "Exists"}]}),
    );
    check(
        "a volume that changes its source retains the named keys only",
        json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}, {"name": "w", "emptyDir": {}}]}),
    );
    check(
        "an object may be replaced",
        json!({"securityContext": {"runAsUser": 1, "runAsGroup": 1}}),
        json!({"securityContext": {"$patch": "replace", "runAsUser": 2}}),
        json!({"securityContext": {"runAsUser": 2}}),
    );
    check(
        "an object may be emptied",
        json!({"securityContext": {"runAsUser": 1}}),
        json!({"securityContext": {"$patch": "delete"}}),
        json!({"securityContext": {}}),
    );
    check(
        "what is added carries no directives and no nulls",
        json!({}),
        json!({"containers": [{"name": "a", "image": null, "$patch": "merge"}, {"name": "b", "$patch": "delete"}],
            "securityContext": {"$retainKeys": ["runAsUser"], "runAsUser": 1}}),
        json!({"containers": [{"name": "a"}], "securityContext": {"runAsUser": 1}}),
    );
    check(
        "null removes a list, with or without an order",
        json!({"volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"a": "b", "c": "d"}}),
        json!({"volumes": null, "$setElementOrder/volumes": [], "nodeSelector": {"a": null}}),
        json!({"nodeSelector": {"c": "d"}}),
    );
}

/// Lists of scalars that merge: finalizers join as a set and are deleted by value.
#[test]
fn strategic_merge_of_finalizers() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "finalizers": ["a", "b"]}});
    let check = |patch: Value, wanted: Value| {
        let result = patched(PatchType::Strategic, &object, &json!({"metadata": patch})).expect("applies");
        assert_eq!(result["metadata"]["finalizers"], wanted);
    };
    check(json!({"finalizers": ["c", "a"]}), json!(["c", "a", "b"]));
    check(json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!(["b"]));
    check(
        json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b", "c"], "finalizers": ["c"]}),
        json!(["b", "c"]),
    );
}

/// The strategy of a Deployment's `strategy` drops the keys of the other type; a Service's ports merge by `port`.
#[test]
fn strategic_merge_of_other_kinds() {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "replicas": 0}});
    let result = patched(PatchType::Strategic, &deployment, &patch).expect("applies");
    assert_eq!(result["spec"], json!({"strategy": {"type": "Recreate"}, "replicas": 0}));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {
        "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}], "selector": {"app": "x"}}});
    let patch = json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}], "selector": {"tier": "y"}}});
    let result = patched(PatchType::Strategic, &service, &patch).expect("applies");
    assert_eq!(
        result["spec"],
        json!({"ports": [{"port": 80, "name": "a", "nodePort": 30000}, {"port": 81, "name": "b"}],
            "selector": {"app": "x", "tier": "y"}})
    );
}

/// Malformed strategic patches are refused with the directive's name.
#[test]
fn strategic_refusals() {
    let object = pod(json!({"containers": [{"name": "a"}], "tolerations": []}));
    let check = |patch: Value, code: u16, wanted: &str| {
        let error = patched(PatchType::Strategic, &object, &patch).expect_err("refused");
        assert_eq!((error.status().code(), error.to_string().contains(wanted)), (code, true), "{error}");
    };
    check(json!([]), 400, "is a JSON object");
    check(json!({"spec": {"$patch": "turn"}}), 400, "unknown $patch directive \"turn\"");
    check(json!({"spec": {"$retainKeys": ["containers"], "volumes": []}}), 400, "does not name \"volumes\"");
    check(json!({"spec": {"$setElementOrder/tolerations": []}}), 400, "the list tolerations does not merge");
    check(json!({"spec": {"containers": [{"image": "x"}]}}), 422, "lacks its merge key \"name\"");
    check(json!({"spec": {"containers": ["x"]}}), 422, "holds objects");
    check(json!({"spec": {"hostNetwork": "yes"}}), 400, "spec.hostNetwork: expected a boolean, got a string");
}

/// Merging the same patch twice gives what merging it once gives, and an empty patch changes nothing.
#[test]
fn strategic_merge_is_idempotent() {
    let object = pod(json!({"containers": [{"name": "a", "image": "1", "ports": [{"containerPort": 1}]}]}));
    let patch = json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "ports": [{"containerPort": 2}]}]}});
    let once = patched(PatchType::Strategic, &object, &patch).expect("applies");
    assert_eq!(patched(PatchType::Strategic, &once, &patch), Ok(once));
    assert_eq!(patched(PatchType::Strategic, &object, &json!({})), Ok(object));
}

/// Merge patches replace lists, merge objects and remove by null.
#[test]
fn merge_patches() {
    let object = pod(json!({"containers": [{"name": "a"}], "nodeSelector": {"a": "b", "c": "d"}}));
    let patch = json!({"spec": {"containers": [{"name": "b"}], "nodeSelector": {"a": null}}});
    let result = patched(PatchType::Merge, &object, &patch).expect("applies");
    assert_eq!(result["spec"], json!({"containers": [{"name": "b"}], "nodeSelector": {"c": "d"}}));
    assert_eq!(patched(PatchType::Merge, &object, &json!([1])).expect_err("refused").status().code(), 400);
}

/// JSON patches: all operations or none, a failed test is 422 and names its path.
#[test]
fn json_patches() {
    let object = pod(json!({"containers": [{"name": "a"}]}));
    let patch = json!([
        {"op": "test", "path": "/spec/containers/0/name", "value": "a"},
        {"op": "add", "path": "/spec/containers/-", "value": {"name": "b"}},
        {"op": "replace", "path": "/spec/containers/0/name", "value": "c"},
        {"op": "copy", "from": "/metadata/name", "path": "/spec/hostname"},
        {"op": "move", "from": "/spec/hostname", "path": "/spec/subdomain"},
        {"op": "remove", "path": "/spec/containers/1"}
    ]);
    let result = patched(PatchType::Json, &object, &patch).expect("applies");
    assert_eq!(result["spec"], json!({"containers": [{"name": "c"}], "subdomain": "p"}));
    let check = |patch: Value, code: u16, wanted: &str| {
        let error = patched(PatchType::Json, &object, &patch).expect_err("refused");
        assert_eq!((error.status().code(), error.to_string().contains(wanted)), (code, true), "{error}");
    };
    check(json!([{"op": "test", "path": "/metadata/name", "value": "q"}]), 422, "testing value /metadata/name failed");
    check(json!([{"op": "remove", "path": "/spec/x"}]), 422, "/spec/x does not exist");
    check(json!([{"op": "turn", "path": "/spec/x"}]), 400, "operation 0");
    check(json!({"op": "remove"}), 400, "is a list of operations");
    check(json!([{"op": "replace", "path": "/spec/hostNetwork", "value": 1}]), 422, "does not exist");
    check(json!([{"op": "add", "path": "/spec/hostNetwork", "value": 1}]), 400, "expected a boolean");
}

/// Patches that multiply values or depth are stopped by the budgets.
#[test]
fn json_patch_budgets() {
    let object = pod(json!({}));
    let many =
        Value::Array(vec![json!({"op": "test", "path": "/kind", "value": "Pod"}); super::json::MAX_OPERATIONS + 1]);
    assert!(matches!(patched(PatchType::Json, &object, &many), Err(PatchError::TooLarge(_))));
    let doubling = Value::Array(vec![json!({"op": "copy", "from": "", "path": "/metadata"}); 100]);
    assert!(matches!(patched(PatchType::Json, &object, &doubling), Err(PatchError::TooLarge(_))));
    let wide = json!(vec![0; 1000]);
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": wide})];
    operations.extend((0..=MAX_VALUES / 1000).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/b{n}")})));
    assert!(matches!(patched(PatchType::Json, &object, &Value::Array(operations)), Err(PatchError::TooLarge(_))));
}

/// Unknown fields of a patch are reported, duplicate keys too.
#[test]
fn validation_reaches_patches() {
    let object = pod(json!({}));
    let body = br#"{"spec":{"x":1,"hostname":"a","hostname":"b"}}"#;
    let done = apply(kind("", "pods"), PatchType::Merge, &object, body, FieldValidation::Warn).expect("applies");
    assert_eq!(done.warnings, ["unknown field \"spec.x\"", "duplicate field \"spec.hostname\""]);
    assert!(apply(kind("", "pods"), PatchType::Merge, &object, body, FieldValidation::Strict).is_err());
}

/// Content without a type (a ControllerRevision's data) merges like a merge patch.
#[test]
fn raw_content_merges_plainly() {
    let revisions = kind("apps", "controllerrevisions");
    let object = json!({"data": {"spec": {"a": 1, "list": [1]}}, "revision": 1});
    let result = strategic::apply(revisions.node(), &object, json!({"data": {"spec": {"list": [2], "a": null}}}));
    assert_eq!(result, Ok(json!({"data": {"spec": {"list": [2]}}, "revision": 1})));
}
