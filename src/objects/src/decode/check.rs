//! A tree against its type: wrong types are errors with a path, undeclared fields are dropped and reported, nulls and needless zeros go.

use serde_json::{Map, Number, Value};

use super::scalar::{self, Precision};
use super::{MAX_COMPLAINTS, Place, name_of};
use crate::schema::{Field, Node, Object, Shape, UnknownFields};

/// A value that does not fit its type.
pub(super) struct Misfit {
    pub(super) path: String,
    pub(super) problem: String,
}

/// Checks and normalises `value` in place; the paths of undeclared fields are added to `unknown`.
pub(super) fn check(
    node: Node<'_>,
    value: &mut Value,
    place: &Place<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), Misfit> {
    let wrong = |expected: &str, value: &Value| Misfit {
        path: place.to_string(),
        problem: format!("expected {expected}, got {}", name_of(value)),
    };
    let misfit = |problem: String| Misfit { path: place.to_string(), problem };
    match node.shape() {
        Shape::Bool => match value {
            Value::Bool(_) => Ok(()),
            other => Err(wrong("a boolean", other)),
        },
        Shape::Int32 => match value {
            Value::Number(number) if number.as_i64().is_some_and(|int| i32::try_from(int).is_ok()) => Ok(()),
            Value::Number(number) => Err(misfit(format!("{number} is not an int32"))),
            other => Err(wrong("int32", other)),
        },
        Shape::Int64 => match value {
            Value::Number(number) if number.as_i64().is_some() => Ok(()),
            Value::Number(number) => Err(misfit(format!("{number} is not an int64"))),
            other => Err(wrong("int64", other)),
        },
        Shape::Double => match value {
            Value::Number(number) => {
                if let Some(float) = number.as_f64().filter(|_| !number.is_i64()) {
                    *value = scalar::number(float);
                }
                Ok(())
            }
            other => Err(wrong("a number", other)),
        },
        Shape::String => match value {
            Value::String(_) => Ok(()),
            other => Err(wrong("a string", other)),
        },
        Shape::IntOrString => match value {
            Value::String(_) => Ok(()),
            Value::Number(number) if number.as_i64().is_some_and(|int| i32::try_from(int).is_ok()) => Ok(()),
            Value::Number(number) => Err(misfit(format!("{number} is not an int32"))),
            other => Err(wrong("an integer or a string", other)),
        },
        Shape::Quantity => match value {
            Value::String(_) | Value::Number(_) => {
                *value = Value::String(scalar::quantity(value).map_err(misfit)?);
                Ok(())
            }
            other => Err(wrong("a quantity", other)),
        },
        Shape::Bytes => text(value, "a base64 string", place, scalar::bytes),
        Shape::Time => text(value, "a time", place, |text| scalar::time(text, Precision::Seconds)),
        Shape::MicroTime => text(value, "a time", place, |text| scalar::time(text, Precision::Micros)),
        Shape::Duration => text(value, "a duration", place, scalar::duration),
        Shape::Json => Ok(()),
        Shape::RawExtension | Shape::FieldsV1 => match value {
            Value::Object(_) => Ok(()),
            other => Err(wrong("an object", other)),
        },
        Shape::OrArray(inner) => match value {
            Value::Array(items) => check_items(node.at(*inner), items, place, unknown),
            other => check(node.at(*inner), other, place, unknown),
        },
        Shape::OrBool(inner) => match value {
            Value::Bool(_) => Ok(()),
            other => check(node.at(*inner), other, place, unknown),
        },
        Shape::OrStrings(inner) => match value {
            Value::Array(items) => match items.iter().position(|item| !item.is_string()) {
                Some(index) => {
                    Err(Misfit { path: place.index(index).to_string(), problem: "expected a string".into() })
                }
                None => Ok(()),
            },
            other => check(node.at(*inner), other, place, unknown),
        },
        Shape::List(element, _) => match value {
            Value::Array(items) => check_items(node.at(*element), items, place, unknown),
            other => Err(wrong("a list", other)),
        },
        Shape::Map(element) => match value {
            Value::Object(map) => {
                let element = node.at(*element);
                for (key, item) in map.iter_mut() {
                    let place = place.key(key);
                    fill_null(element, item);
                    check(element, item, &place, unknown)?;
                }
                Ok(())
            }
            other => Err(wrong("an object", other)),
        },
        Shape::Object(object) => match value {
            Value::Object(map) => check_object(node, object, map, place, unknown),
            other => Err(wrong("an object", other)),
        },
    }
}

fn check_items(
    element: Node<'_>,
    items: &mut [Value],
    place: &Place<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), Misfit> {
    for (index, item) in items.iter_mut().enumerate() {
        let place = place.index(index);
        fill_null(element, item);
        check(element, item, &place, unknown)?;
    }
    Ok(())
}

fn check_object(
    node: Node<'_>,
    object: &Object,
    map: &mut Map<String, Value>,
    place: &Place<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), Misfit> {
    let mut dropped = Vec::new();
    for (key, value) in map.iter_mut() {
        let Some(field) = object.field(key) else {
            if object.unknown() == UnknownFields::Prune {
                if unknown.len() < MAX_COMPLAINTS {
                    unknown.push(place.key(key).to_string());
                }
                dropped.push(key.clone());
            }
            continue;
        };
        if !value.is_null() {
            check(node.at(field.ty), value, &place.key(key), unknown)?;
        }
        if value.is_null() || is_needless(field, node.at(field.ty), value) {
            dropped.push(key.clone());
        }
    }
    for key in &dropped {
        map.remove(key);
    }
    Ok(())
}

/// A zero that Go would not have written: of a field that is no pointer and `omitempty`.
pub(super) fn is_needless(field: &Field, node: Node<'_>, value: &Value) -> bool {
    if field.pointer || !field.omitempty {
        return false;
    }
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0) || number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => {
            map.is_empty() && !matches!(node.shape(), Shape::RawExtension | Shape::Json | Shape::FieldsV1)
        }
    }
}

/// In lists and maps a null stands for the zero of the type, as in Go.
fn fill_null(node: Node<'_>, value: &mut Value) {
    if value.is_null() {
        *value = zero(node);
    }
}

/// The zero of a type; null where there is none.
pub(super) fn zero(node: Node<'_>) -> Value {
    match node.shape() {
        Shape::Bool => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => Value::Number(Number::from(0)),
        Shape::Double => Value::from(0.0),
        Shape::String | Shape::Bytes => Value::String(String::new()),
        Shape::Quantity => Value::String("0".to_owned()),
        Shape::Duration => Value::String("0s".to_owned()),
        Shape::List(..) => Value::Array(Vec::new()),
        Shape::Map(_) | Shape::Object(_) | Shape::OrArray(_) | Shape::OrStrings(_) => Value::Object(Map::new()),
        Shape::OrBool(_) => Value::Bool(false),
        Shape::Time | Shape::MicroTime | Shape::RawExtension | Shape::Json | Shape::FieldsV1 => Value::Null,
    }
}

/// Puts a text into its one form.
fn text(
    value: &mut Value,
    expected: &str,
    place: &Place<'_>,
    form: impl Fn(&str) -> Result<String, String>,
) -> Result<(), Misfit> {
    let Value::String(text) = value else {
        let problem = format!("expected {expected}, got {}", name_of(value));
        return Err(Misfit { path: place.to_string(), problem });
    };
    *text = form(text).map_err(|problem| Misfit { path: place.to_string(), problem })?;
    Ok(())
}
