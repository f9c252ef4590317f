//! Reading and writing fields of a parsed object by path. Knows nothing of kinds; a field of the wrong type reads as
//! absent, since the API checked types before anything was stored.

use serde_json::{Map, Value};

/// The text at `pointer`, or "".
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at `pointer`.
#[must_use]
pub fn int(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// Whether the field at `pointer` is `true`.
#[must_use]
pub fn is_true(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The items at `pointer`; none when absent.
#[must_use]
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The object at `pointer`.
#[must_use]
pub fn map<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object)
}

fn child<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    match object {
        Value::Object(map) => map.entry(name).or_insert(Value::Null),
        _ => unreachable!("made an object above"),
    }
}

/// Sets the field at `path`, making objects on the way.
pub fn set(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    let place = path.iter().fold(object, |object, name| child(object, name));
    *place = value.into();
}

/// Sets the field at `path`, or removes it when `value` is `None`.
pub fn set_or_remove(object: &mut Value, path: &[&str], value: Option<Value>) {
    match value {
        Some(value) => set(object, path, value),
        None => remove(object, path),
    }
}

/// Removes the field at `path`, if it is there.
pub fn remove(object: &mut Value, path: &[&str]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(object, |object, name| object.get_mut(*name));
    if let Some(map) = parent.and_then(Value::as_object_mut) {
        map.remove(*last);
    }
}

/// The list at `path` for changing, made if absent.
pub fn list_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let place = path.iter().fold(object, |object, name| child(object, name));
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    match place {
        Value::Array(items) => items,
        _ => unreachable!("made an array above"),
    }
}

/// Sets condition `kind` in `status.conditions`; `lastTransitionTime` moves only when the status does.
/// Answers whether anything but times changed.
pub fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) -> bool {
    let conditions = list_mut(object, &["status", "conditions"]);
    let found = conditions.iter_mut().find(|condition| text(condition, "/type") == kind);
    let Some(condition) = found else {
        conditions.push(serde_json::json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now, "lastUpdateTime": now,
        }));
        return true;
    };
    let moved = text(condition, "/status") != status;
    let told = text(condition, "/reason") != reason || text(condition, "/message") != message;
    if moved {
        set(condition, &["lastTransitionTime"], now);
    }
    if moved || told {
        set(condition, &["status"], status);
        set(condition, &["reason"], reason);
        set(condition, &["message"], message);
        if condition.get("lastUpdateTime").is_some() {
            set(condition, &["lastUpdateTime"], now);
        }
    }
    moved || told
}

/// Removes condition `kind`; answers whether it was there.
pub fn remove_condition(object: &mut Value, kind: &str) -> bool {
    let conditions = list_mut(object, &["status", "conditions"]);
    let before = conditions.len();
    conditions.retain(|condition| text(condition, "/type") != kind);
    before != conditions.len()
}

/// The condition `kind` of `status.conditions`.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)
}
