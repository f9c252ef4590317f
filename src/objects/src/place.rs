//! Places in a JSON document: reading and filling them by path.
//!
//! `null` counts as absent everywhere, as the wire formats have it. Nothing here panics on a document of another
//! shape than expected, and nothing here knows a kind.

use serde_json::{Map, Value};

/// The value at `path`, unless it is absent or null.
#[must_use]
pub fn get<'a>(document: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(document, |place, key| place.get(*key)).filter(|value| !value.is_null())
}

/// The text at `path`.
#[must_use]
pub fn text<'a>(document: &'a Value, path: &[&str]) -> Option<&'a str> {
    get(document, path).and_then(Value::as_str)
}

/// The text at `path`, empty when absent.
#[must_use]
pub fn text_or_empty<'a>(document: &'a Value, path: &[&str]) -> &'a str {
    text(document, path).unwrap_or_default()
}

/// The integer at `path`.
#[must_use]
pub fn int(document: &Value, path: &[&str]) -> Option<i64> {
    get(document, path).and_then(Value::as_i64)
}

/// The flag at `path`, false when absent.
#[must_use]
pub fn flag(document: &Value, path: &[&str]) -> bool {
    get(document, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The items of the list at `path`, none when absent.
#[must_use]
pub fn items<'a>(document: &'a Value, path: &[&str]) -> &'a [Value] {
    get(document, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The map at `path`.
#[must_use]
pub fn map<'a>(document: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    get(document, path).and_then(Value::as_object)
}

/// The value at `path`, to change it; null counts as absent.
pub fn get_mut<'a>(document: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(document, |place, key| place.get_mut(*key)).filter(|value| !value.is_null())
}

/// The items of the list at `path`, to change them.
pub fn items_mut<'a>(document: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    get_mut(document, path).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// The map at `path`, made (with every map on the way) where absent. `None` when something else stands in the way.
pub fn map_made<'a>(document: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut place = document;
    for key in path {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        place = place.as_object_mut()?.entry(*key).or_insert(Value::Null);
    }
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
}

/// Fills `key` of the map `document` when it is absent.
pub fn fill(document: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = document.as_object_mut() {
        let place = map.entry(key).or_insert(Value::Null);
        if place.is_null() {
            *place = value.into();
        }
    }
}

/// Fills `key` like [`fill`], also where the text is empty: an empty enum word means "not said".
pub fn fill_text(document: &mut Value, key: &str, value: &str) {
    if let Some(map) = document.as_object_mut() {
        let place = map.entry(key).or_insert(Value::Null);
        if place.is_null() || place.as_str() == Some("") {
            *place = value.into();
        }
    }
}

/// Writes `value` at `path`, making the maps on the way; does nothing when something else stands in the way.
pub fn set(document: &mut Value, path: &[&str], value: impl Into<Value>) {
    if let Some((last, way)) = path.split_last()
        && let Some(map) = map_made(document, way)
    {
        map.insert((*last).to_owned(), value.into());
    }
}

/// Takes the value at `path` out of the document.
pub fn remove(document: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, way) = path.split_last()?;
    get_mut(document, way)?.as_object_mut()?.remove(*last)
}

/// Makes `path` of `target` equal to that of `source`: copied, or removed where the source has nothing.
pub fn keep(target: &mut Value, source: &Value, path: &[&str]) {
    match get(source, path) {
        Some(value) => set(target, path, value.clone()),
        None => {
            remove(target, path);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Absent, null and wrongly shaped places answer "nothing"; writing makes what is missing and destroys nothing.
    #[test]
    fn places_are_read_and_filled() {
        let mut document = json!({"spec": {"replicas": 3, "gone": null, "text": "x"}});
        assert_eq!(int(&document, &["spec", "replicas"]), Some(3));
        assert!(get(&document, &["spec", "gone"]).is_none());
        assert!(get(&document, &["spec", "text", "deeper"]).is_none());
        assert!(items(&document, &["spec", "replicas"]).is_empty());
        set(&mut document, &["status", "a", "b"], 1);
        set(&mut document, &["spec", "text", "deeper"], 1);
        assert_eq!(document, json!({"spec": {"replicas": 3, "gone": null, "text": "x"}, "status": {"a": {"b": 1}}}));
        keep(&mut document, &json!({"spec": {"gone": 1}}), &["spec", "gone"]);
        keep(&mut document, &json!({}), &["status"]);
        assert_eq!(document, json!({"spec": {"replicas": 3, "gone": 1, "text": "x"}}));
    }
}
