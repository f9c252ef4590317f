//! Decoding: texts of refusals, the zero-value rule, and that both forms of a body give the same object.

mod encoder;
mod generator;

use proptest::prelude::{any, proptest};
use serde_json::{Value, json};

use super::{DecodeError, FieldValidation, MAX_DEPTH, MAX_VALUES, json, parse, protobuf, value};
use crate::kind::{Kind, Target, split_api_version};
use crate::registry::registry;
use encoder::{encode, envelope, field_bytes, field_varint};

fn kind(group: &str, plural: &str) -> &'static Kind {
    registry().resource(group, "v1", plural).expect("served")
}

fn decode(group: &str, plural: &str, body: &Value) -> Result<super::Decoded, DecodeError> {
    json(kind(group, plural), body.to_string().as_bytes(), FieldValidation::Warn)
}

/// A value of the wrong type is refused with the path and both types, for each family of types.
#[test]
fn wrong_types_name_the_field() {
    let check = |group: &str, plural: &str, body: Value, wanted: &str| {
        let error = decode(group, plural, &body).expect_err("refused").to_string();
        assert!(error.ends_with(wanted), "{error}");
    };
    check(
        "apps",
        "deployments",
        json!({"spec": {"replicas": "3"}}),
        "a Deployment: spec.replicas: expected int32, got a string",
    );
    check(
        "apps",
        "deployments",
        json!({"spec": {"replicas": 3_000_000_000_u32}}),
        "spec.replicas: 3000000000 is not an int32",
    );
    check("apps", "deployments", json!({"spec": {"replicas": 1.5}}), "spec.replicas: 1.5 is not an int32");
    check("apps", "deployments", json!({"spec": {"paused": 1}}), "spec.paused: expected a boolean, got a number");
    check("", "pods", json!({"spec": {"containers": {}}}), "spec.containers: expected a list, got an object");
    check(
        "",
        "pods",
        json!({"spec": {"containers": [{"image": 1}]}}),
        "spec.containers[0].image: expected a string, got a number",
    );
    check("", "pods", json!({"metadata": {"labels": {"a": 1}}}), "metadata.labels.a: expected a string, got a number");
    check("", "pods", json!({"metadata": []}), "metadata: expected an object, got a list");
    check("", "secrets", json!({"data": {"a": "%"}}), "data.a: not valid base64: Invalid symbol 37, offset 0.");
    check("", "pods", json!({"metadata": {"deletionTimestamp": "today"}}), "\"today\" is not an RFC 3339 time");
    check(
        "",
        "services",
        json!({"spec": {"ports": [{"targetPort": true}]}}),
        "expected an integer or a string, got a boolean",
    );
    let error = decode("", "pods", &json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}))
        .expect_err("refused");
    assert!(error.to_string().contains("spec.containers[0].resources.limits.cpu: "), "{error}");
    let error = decode("", "pods", &json!([])).expect_err("refused");
    assert_eq!(error.to_string(), "the body must be a JSON object, not a list");
}

/// Unknown and duplicate fields are dropped; warned about, refused or passed over as the client wishes.
#[test]
fn unknown_and_duplicate_fields_follow_the_validation() {
    let body = br#"{"metadata":{"name":"a","name":"b"},"spec":{"replicas":1,"x":1,"template":{"spec":{"containers":[{"y":1}]}}}}"#;
    let kind = kind("apps", "deployments");
    let warned = json(kind, body, FieldValidation::Warn).expect("accepted");
    assert_eq!(warned.object["metadata"]["name"], "b");
    assert_eq!(warned.object["spec"].get("x"), None);
    let complaints = [
        "unknown field \"spec.template.spec.containers[0].y\"",
        "unknown field \"spec.x\"",
        "duplicate field \"metadata.name\"",
    ];
    assert_eq!(warned.warnings, complaints);
    assert!(json(kind, body, FieldValidation::Ignore).expect("accepted").warnings.is_empty());
    let error = json(kind, body, FieldValidation::Strict).expect_err("refused");
    let wanted = format!(
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {}",
        complaints.join(", ")
    );
    assert_eq!(error.to_string(), wanted);
    assert_eq!(error.status().code(), 400);
}

/// Absent type names are filled, other ones refused; DeleteOptions may come in any group's version.
#[test]
fn type_names_are_filled_and_checked() {
    let object = decode("", "pods", &json!({"metadata": {"name": "a"}})).expect("accepted").object;
    assert_eq!((&object["apiVersion"], &object["kind"]), (&json!("v1"), &json!("Pod")));
    let error = decode("", "pods", &json!({"apiVersion": "apps/v1", "kind": "Pod"})).expect_err("refused");
    assert_eq!(error.to_string(), "the API version in the data (apps/v1) does not match the expected API version (v1)");
    let error = decode("", "pods", &json!({"kind": "Node"})).expect_err("refused");
    assert_eq!(error.to_string(), "the kind in the data (Node) does not match the expected kind (Pod)");
    let options = registry().delete_options();
    let body =
        br#"{"apiVersion":"policy/v1","kind":"DeleteOptions","gracePeriodSeconds":0,"preconditions":{"uid":"u"}}"#;
    let decoded = json(options, body, FieldValidation::Strict).expect("accepted");
    assert_eq!(decoded.object["gracePeriodSeconds"], 0);
}

/// Null is absent; zeros Go would not have written are dropped and zeros behind pointers kept; special values get their one form.
#[test]
fn values_are_normalised() {
    let body = json!({
        "metadata": {"name": "a", "labels": null, "creationTimestamp": null},
        "spec": {
            "replicas": 0, "paused": false, "strategy": {}, "minReadySeconds": 0,
            "template": {"metadata": {}, "spec": {"hostNetwork": false, "containers": [{
                "name": "c", "args": [], "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                "securityContext": {"runAsUser": 0, "privileged": false}
            }], "volumes": [{"name": "v", "emptyDir": {}}]}}
        },
        "status": {}
    });
    let decoded = decode("apps", "deployments", &body).expect("accepted").object;
    assert_eq!(
        decoded,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {
                "replicas": 0,
                "template": {"spec": {"containers": [{
                    "name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                    "securityContext": {"runAsUser": 0, "privileged": false}
                }], "volumes": [{"name": "v", "emptyDir": {}}]}}
            }
        })
    );
    let lease = json!({"spec": {"renewTime": "2026-01-02T03:04:05.5+01:00", "leaseDurationSeconds": 0}});
    let lease = decode("coordination.k8s.io", "leases", &lease).expect("accepted").object;
    assert_eq!(lease["spec"], json!({"renewTime": "2026-01-02T02:04:05.500000Z", "leaseDurationSeconds": 0}));
}

/// Unknown fields of a Workload's spec are kept as sent, of its status they are dropped.
#[test]
fn workload_keeps_unknown_spec_fields() {
    let body = json!({"spec": {"name": "w", "replicas": 1, "command": ["x"], "mine": {"a": null}, "strict": false}, "status": {"x": 1}});
    let decoded = decode("quilt.sh", "workloads", &body).expect("accepted");
    assert_eq!(decoded.object["spec"], body["spec"]);
    assert_eq!(decoded.warnings, ["unknown field \"status.x\""]);
}

/// Nesting, number of values and size are limited before they cost anything.
#[test]
fn limits_hold() {
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert_eq!(parse(deep.as_bytes()), Err(DecodeError::TooDeep));
    let fine = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert!(parse(fine.as_bytes()).is_ok());
    let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
    assert_eq!(parse(many.as_bytes()), Err(DecodeError::TooMany));
    let large = vec![b' '; super::MAX_BODY_BYTES + 1];
    let error = parse(&large).expect_err("refused");
    assert_eq!(error.status().code(), 413);
    assert!(matches!(parse(b"{\"a\":}"), Err(DecodeError::Syntax(_))));
    assert!(matches!(parse(b"{} {}"), Err(DecodeError::Syntax(_))));
    assert!(matches!(parse(b""), Err(DecodeError::Syntax(_))));
}

/// Go writes `replicas: 0` behind a pointer, so it is kept; and `paused: false` behind none, so it is dropped.
#[test]
fn the_zero_value_rule_holds_on_the_wire() {
    let spec = [field_varint(1, 0), field_varint(5, 0), field_varint(7, 0), field_bytes(4, &[])].concat();
    let metadata = [field_bytes(1, b"web"), field_bytes(3, b""), field_bytes(8, b"")].concat();
    let message =
        [field_bytes(1, &metadata), field_bytes(2, &spec), field_bytes(3, &[]), field_bytes(99, b"later")].concat();
    let body = envelope("apps/v1", "Deployment", &message);
    let decoded = protobuf(registry(), kind("apps", "deployments"), &body).expect("accepted").object;
    let wanted =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 0}});
    assert_eq!(decoded, wanted);
}

/// The body of `kubectl auth can-i`: written by hand, byte by byte.
#[test]
fn an_access_review_is_read() {
    let attributes = [field_bytes(1, b"default"), field_bytes(2, b"list"), field_bytes(5, b"pods")].concat();
    let message = [field_bytes(1, &[]), field_bytes(2, &field_bytes(1, &attributes)), field_bytes(3, &[])].concat();
    let body = envelope("authorization.k8s.io/v1", "SelfSubjectAccessReview", &message);
    let target = registry().target("authorization.k8s.io", "v1", "SelfSubjectAccessReview").expect("known");
    let review = protobuf(registry(), target, &body).expect("accepted").object;
    assert_eq!(
        review["spec"],
        json!({"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}})
    );
}

/// Bodies recorded from kubectl give the object kubectl shows for the same command.
#[test]
fn recorded_kubectl_bodies_are_read() {
    let lines = include_str!("tests/kubectl.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let (hex, shown) = line.split_once(' ').expect("body and object");
        let body: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal"))
            .collect();
        let shown: Value = serde_json::from_str(shown).expect("JSON");
        let (group, version) = split_api_version(shown["apiVersion"].as_str().expect("a version"));
        let target = registry().target(group, version, shown["kind"].as_str().expect("a kind")).expect("known");
        let wanted = value(target, shown, FieldValidation::Strict).expect("kubectl shows valid objects").object;
        assert_eq!(protobuf(registry(), target, &body).expect("accepted").object, wanted);
    }
}

/// Embedded messages are flattened, bytes become base64, maps become objects, packed and unpacked lists are the same.
#[test]
fn special_forms_are_read_from_the_wire() {
    let volume = [field_bytes(1, b"v"), field_bytes(2, &field_bytes(2, &[]))].concat();
    let context = [field_bytes(4, &[1, 2]), field_varint(4, 3)].concat();
    let spec = [field_bytes(1, &volume), field_bytes(14, &context)].concat();
    let body = envelope("v1", "Pod", &field_bytes(2, &spec));
    let pod = protobuf(registry(), kind("", "pods"), &body).expect("accepted").object;
    assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    assert_eq!(pod["spec"]["securityContext"]["supplementalGroups"], json!([1, 2, 3]));
    let entry = [field_bytes(1, b"key"), field_bytes(2, &[0xff, 0x00])].concat();
    let body = envelope("v1", "Secret", &field_bytes(2, &entry));
    let secret = protobuf(registry(), kind("", "secrets"), &body).expect("accepted").object;
    assert_eq!(secret["data"], json!({"key": "/wA="}));
}

/// A list that must be there and is empty has no form on the wire, and is there all the same.
#[test]
fn required_lists_are_there_when_empty() {
    let body = envelope("rbac.authorization.k8s.io/v1", "ClusterRole", &field_bytes(1, &field_bytes(1, b"nothing")));
    let role = protobuf(registry(), kind("rbac.authorization.k8s.io", "clusterroles"), &body).expect("accepted").object;
    assert_eq!(role["rules"], json!([]));
    assert_eq!(role.get("aggregationRule"), None);
}

/// Broken envelopes and messages are errors that name the place, never a panic.
#[test]
fn broken_messages_are_refused() {
    let pods = kind("", "pods");
    let refuse = |body: &[u8]| protobuf(registry(), pods, body).expect_err("refused").to_string();
    assert!(refuse(b"{}").contains("does not start with"));
    assert!(refuse(&envelope("v1", "Node", &[])).contains("expected kind (Pod)"));
    let text = refuse(&envelope("v1", "Pod", &field_bytes(1, &field_bytes(1, &[0xff]))));
    assert!(text.ends_with("metadata.name: is not valid UTF-8"), "{text}");
    let text = refuse(&envelope("v1", "Pod", &field_bytes(2, &[0x0a, 0x05, 0x00])));
    assert!(text.ends_with("spec: the message ends inside a field"), "{text}");
    let text = refuse(&envelope("v1", "Pod", &field_varint(2, 1)));
    assert!(text.ends_with("spec: is not of the expected wire type"), "{text}");
}

/// Messages nested without end are refused at the depth limit.
#[test]
fn deep_messages_are_refused() {
    let mut schema = Vec::new();
    for _ in 0..MAX_DEPTH {
        // JSONSchemaProps.not is a JSONSchemaProps.
        schema = field_bytes(28, &schema);
    }
    let version = field_bytes(4, &field_bytes(1, &schema));
    let body =
        envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", &field_bytes(2, &field_bytes(7, &version)));
    let kind = kind("apiextensions.k8s.io", "customresourcedefinitions");
    assert_eq!(protobuf(registry(), kind, &body), Err(DecodeError::TooDeep));
}

proptest! {
    /// Any object of any kind comes out of the protobuf form as it comes out of the JSON form.
    #[test]
    fn both_forms_give_the_same_object(seed in any::<u64>()) {
        let (kind, object) = generator::object(seed);
        let target: Target<'_> = kind.target();
        let from_json = value(target, object, FieldValidation::Strict).expect("the generator follows the schema").object;
        let body = encode(target, &from_json);
        let from_wire = protobuf(registry(), target, &body).expect("the encoder follows the schema").object;
        assert_eq!(from_wire, from_json);
        // Decoding is idempotent: what was decoded once decodes to itself.
        let again = json(target, from_json.to_string().as_bytes(), FieldValidation::Strict).expect("still fits").object;
        assert_eq!(again, from_json);
    }

    /// Arbitrary bytes never panic in either decoder.
    #[test]
    fn arbitrary_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let pods = kind("", "pods");
        let _ = json(pods, &bytes, FieldValidation::Warn);
        let _ = protobuf(registry(), pods, &envelope("v1", "Pod", &bytes));
        let _ = protobuf(registry(), pods, &[b"k8s\0".as_slice(), &bytes].concat());
    }
}
