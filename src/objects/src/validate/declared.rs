//! What the kinds table itself declares: allowed words, bounds and immutability, for every kind alike.
//!
//! Runs after the hand-written checks and stays silent about fields they have already named.

use serde_json::Value;

use super::{FieldError, IMMUTABLE, Path};
use crate::kind::Kind;
use crate::schema::{Field, Node};

/// Deepest nesting that is walked: deeper than any type of the table, and a bound for recursive ones.
const DEPTH_MAX: usize = 64;

/// Checks words and bounds of everything but status, which controllers write in words of their own time.
pub(super) fn check(kind: &Kind, object: &Value, errors: &mut Vec<FieldError>) {
    let mut found = Vec::new();
    walk(kind.node(), object, None, &Path::new(""), 0, &mut |field, value, _, at| rules(field, value, at, &mut found));
    merge(errors, found);
}

/// Checks fields declared immutable.
pub(super) fn check_update(kind: &Kind, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let mut found = Vec::new();
    walk(kind.node(), new, Some(old), &Path::new(""), 0, &mut |field, value, before, at| {
        if field.immutable && before.is_some_and(|before| before != value && !before.is_null()) {
            found.push(FieldError::invalid(at, value, IMMUTABLE));
        }
    });
    merge(errors, found);
}

fn merge(errors: &mut Vec<FieldError>, found: Vec<FieldError>) {
    for error in found {
        if errors.iter().all(|known| known.field != error.field) {
            errors.push(error);
        }
    }
}

type Visit<'v> = dyn FnMut(&Field, &Value, Option<&Value>, &Path) + 'v;

fn walk(node: Node<'_>, value: &Value, old: Option<&Value>, at: &Path, depth: usize, visit: &mut Visit<'_>) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) if node.object().is_some() => {
            let fields = node.object().into_iter().flat_map(|object| object.fields());
            for field in fields.filter(|field| depth > 0 || field.name != "status") {
                let absent = map.get(&*field.name).is_none_or(is_unset);
                if absent && field.rules.iter().any(|(rule, _)| rule == "required") {
                    visit(field, &Value::Null, None, &at.child(&field.name));
                }
            }
            for (key, value) in map.iter().filter(|(key, value)| !value.is_null() && (depth > 0 || *key != "status")) {
                if let Some((field, place)) = node.field(key) {
                    let (at, old) = (at.child(key), old.and_then(|old| old.get(key)));
                    visit(field, value, old, &at);
                    walk(place, value, old, &at, depth + 1, visit);
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(element) = node.element() {
                    walk(element, value, old.and_then(|old| old.get(key)), &at.key(key), depth + 1, visit);
                }
            }
        }
        // Items have no identity here, so an item of the old list is never compared with one of the new.
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                if let Some(element) = node.element() {
                    walk(element, value, None, &at.index(index), depth + 1, visit);
                }
            }
        }
        _ => {}
    }
}

/// Complains about a word that is not one of the allowed ones.
fn words(field: &Field, value: &Value, at: &Path, found: &mut Vec<FieldError>) {
    if let Some(text) = value.as_str()
        && !text.is_empty()
        && !field.enumeration.is_empty()
        && !field.enumeration.iter().any(|word| word == text)
    {
        let words: Vec<&str> = field.enumeration.iter().filter(|word| !word.is_empty()).map(|word| &**word).collect();
        found.push(FieldError::not_supported(at, value, &words));
    }
}

/// Whether a value says nothing: what a Go client sends for a field it did not set.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn rules(field: &Field, value: &Value, at: &Path, found: &mut Vec<FieldError>) {
    if value.is_null() {
        found.push(FieldError::required(at, ""));
        return;
    }
    words(field, value, at, found);
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        words(field, item, &at.index(index), found);
    }
    for (rule, bound) in &field.rules {
        let Ok(bound) = bound.parse::<i64>() else { continue };
        let size = usize::try_from(bound).unwrap_or(0);
        match (&**rule, value) {
            ("minimum", Value::Number(number)) if number.as_i64().is_some_and(|number| number < bound) => {
                found.push(FieldError::invalid(at, value, &format!("must be greater than or equal to {bound}")));
            }
            ("maximum", Value::Number(number)) if number.as_i64().is_some_and(|number| number > bound) => {
                found.push(FieldError::invalid(at, value, &format!("must be less than or equal to {bound}")));
            }
            ("maxLength" | "maxBytes", Value::String(text)) if text.len() > size => {
                found.push(FieldError::too_long(at, size));
            }
            ("minLength", Value::String(text)) if text.len() < size => found.push(FieldError::required(at, "")),
            ("maxItems", Value::Array(items)) if items.len() > size => {
                found.push(FieldError::too_many(at, items.len(), size));
            }
            ("minItems", Value::Array(items)) if items.len() < size => {
                found.push(FieldError::invalid(at, value, &format!("must have at least {size} items")));
            }
            _ => {}
        }
    }
}
