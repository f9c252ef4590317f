//! Making Pods out of templates, the same way for every controller.

use quilt_objects::hooks::run_by_someone;
use serde_json::{Value, json};

use crate::fields;
use crate::object::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use crate::view::{Occasion, Settings};

/// The reference by which `owner` manages what it makes.
#[must_use]
pub fn controlled_by(api_version: &str, kind: &str, owner: &Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind,
        "name": fields::text(owner, "/metadata/name"), "uid": fields::text(owner, "/metadata/uid"),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A Pod named `name` made from `template`, managed by `owner`.
#[must_use]
pub fn from_template(
    template: &Value,
    namespace: &str,
    name: &str,
    owner: &Value,
    settings: Settings,
    at: &mut Occasion,
) -> Value {
    let mut metadata = at.born(namespace, name);
    fields::set(&mut metadata, &["ownerReferences"], json!([owner]));
    for kept in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{kept}")) {
            fields::set(&mut metadata, &[kept], value.clone());
        }
    }
    let mut spec = template.get("spec").cloned().unwrap_or_else(|| json!({}));
    tolerate_absence(&mut spec, settings.placement_grace_secs);
    run_by_someone(&mut spec);
    let qos = quality(&spec);
    json!({ "metadata": metadata, "spec": spec, "status": { "phase": "Pending", "qosClass": qos } })
}

/// What admission does for Pods of clients: a Pod that does not say how long it stays on an absent node stays for the
/// cluster's grace.
fn tolerate_absence(spec: &mut Value, grace_secs: u64) {
    for taint in [TAINT_NOT_READY, TAINT_UNREACHABLE] {
        let said = fields::list(spec, "/tolerations").iter().any(|toleration| {
            let key = fields::text(toleration, "/key");
            let effect = fields::text(toleration, "/effect");
            (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
        });
        if !said {
            fields::list_mut(spec, &["tolerations"]).push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": grace_secs,
            }));
        }
    }
}

/// `status.qosClass`: Guaranteed when every container limits CPU and memory and requests as much, `BestEffort` when
/// none says anything.
fn quality(spec: &Value) -> &'static str {
    let containers = || fields::list(spec, "/containers").iter().chain(fields::list(spec, "/initContainers"));
    let amount = |container: &Value, of: &str, resource: &str| {
        container.pointer(&format!("/resources/{of}/{resource}")).filter(|amount| !amount.is_null()).cloned()
    };
    let says = |container: &Value| {
        ["requests", "limits"]
            .iter()
            .any(|of| ["cpu", "memory"].iter().any(|name| amount(container, of, name).is_some()))
    };
    let guaranteed = |container: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some() && amount(container, "requests", name).is_none_or(|asked| Some(asked) == limit)
        })
    };
    if !containers().any(says) {
        "BestEffort"
    } else if containers().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// A short stable name for a piece of an object: FNV-1a over its canonical JSON, in the letters of generated names.
#[must_use]
pub fn hash_of(piece: &Value, salt: Option<i64>) -> String {
    // serde_json writes maps in key order, so equal values give equal text.
    let text = piece.to_string();
    let salt = salt.map(i64::to_le_bytes).unwrap_or_default();
    let hash = text
        .bytes()
        .chain(salt)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    let mut left = hash;
    let mut out = String::with_capacity(10);
    for _ in 0..10 {
        out.push(char::from(letters[usize::try_from(left % 27).unwrap_or_default()]));
        left /= 27;
    }
    out
}
