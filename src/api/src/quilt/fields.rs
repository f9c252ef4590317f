//! [`Fields`]: reading a JSON body field by field, so that every missing or mistyped one is named in a single 422.
//!
//! `null` equals absent everywhere and unknown fields are ignored. An accessor that meets a fault notes it and answers
//! with an empty value, which [`Fields::finish`] then never lets out. Must not know routes, ranges or state.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::envelope::Code;
use super::refuse;
use crate::problem::Problem;

/// A body under inspection.
pub(crate) struct Fields<'a> {
    body: &'a Map<String, Value>,
    faults: Vec<Fault>,
}

struct Fault {
    field: String,
    expected: String,
    received: &'static str,
}

/// The JSON type of a value, as the envelope names it.
pub(crate) const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl<'a> Fields<'a> {
    /// Starts reading `body`.
    pub(crate) const fn of(body: &'a Map<String, Value>) -> Self {
        Self { body, faults: Vec::new() }
    }

    fn value(&self, field: &str) -> Option<&'a Value> {
        self.body.get(field).filter(|value| !value.is_null())
    }

    fn fault(&mut self, field: impl Into<String>, expected: impl Into<String>, received: &'static str) {
        self.faults.push(Fault { field: field.into(), expected: expected.into(), received });
    }

    fn read<T>(&mut self, field: &str, expected: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.value(field)?;
        let read = read(value);
        if read.is_none() {
            self.fault(field, expected, type_name(value));
        }
        read
    }

    fn require<T>(&mut self, field: &str, expected: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        if self.value(field).is_none() {
            self.fault(field, expected, "null");
        }
        self.read(field, expected, read)
    }

    /// A required string.
    pub(crate) fn required_string(&mut self, field: &str) -> String {
        self.require(field, "string", Value::as_str).unwrap_or_default().to_owned()
    }

    /// An optional string.
    pub(crate) fn string(&mut self, field: &str) -> Option<String> {
        self.read(field, "string", Value::as_str).map(str::to_owned)
    }

    /// A required integer; one with a fraction is a wrong type.
    pub(crate) fn required_integer(&mut self, field: &str) -> i64 {
        self.require(field, "integer", integer).unwrap_or_default()
    }

    /// An optional integer.
    pub(crate) fn integer(&mut self, field: &str) -> Option<i64> {
        self.read(field, "integer", integer)
    }

    /// An optional number.
    pub(crate) fn number(&mut self, field: &str) -> Option<f64> {
        self.read(field, "number", Value::as_f64)
    }

    /// An optional boolean.
    pub(crate) fn boolean(&mut self, field: &str) -> Option<bool> {
        self.read(field, "boolean", Value::as_bool)
    }

    /// A required boolean.
    pub(crate) fn required_boolean(&mut self, field: &str) -> bool {
        self.require(field, "boolean", Value::as_bool).unwrap_or_default()
    }

    /// An optional object.
    pub(crate) fn object(&mut self, field: &str) -> Option<&'a Map<String, Value>> {
        self.read(field, "object", Value::as_object)
    }

    /// An optional array.
    pub(crate) fn array(&mut self, field: &str) -> Option<&'a Vec<Value>> {
        self.read(field, "array", Value::as_array)
    }

    /// A required array.
    pub(crate) fn required_array(&mut self, field: &str) -> &'a [Value] {
        self.require(field, "array", Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// A required array of strings.
    pub(crate) fn required_strings(&mut self, field: &str) -> Vec<String> {
        self.require(field, "array of strings", strings).unwrap_or_default()
    }

    /// An optional array of strings.
    pub(crate) fn strings(&mut self, field: &str) -> Option<Vec<String>> {
        self.read(field, "array of strings", strings)
    }

    /// An optional object of strings.
    pub(crate) fn string_map(&mut self, field: &str) -> Option<BTreeMap<String, String>> {
        self.read(field, "object of strings", string_map)
    }

    /// An optional string that holds JSON of a shape `read` knows. Text that is not JSON is a 400, JSON of another
    /// shape a fault like any other.
    pub(crate) fn json_text<T>(
        &mut self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.string(field) else { return Ok(None) };
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            refuse::with(Code::BadRequest, format!("{field} is not JSON: {error}"))
                .details(json!({"field": field, "expected": ["a string holding JSON"], "received": clip(&text)}))
        })?;
        if value.is_null() {
            return Ok(None);
        }
        let read = read(&value);
        if read.is_none() {
            self.fault(field, format!("string holding JSON: {expected}"), type_name(&value));
        }
        Ok(read)
    }

    /// Notes a fault found by the caller, inside a nested value.
    pub(crate) fn note(&mut self, field: String, expected: &str, received: &'static str) {
        self.fault(field, expected, received);
    }

    /// 422 with all faults, if there were any.
    ///
    /// # Errors
    /// The 422.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let Some(first) = self.faults.first() else { return Ok(()) };
        let expected: Vec<String> =
            self.faults.iter().map(|fault| format!("{}: {}", fault.field, fault.expected)).collect();
        let message = if first.received == "null" {
            format!("field '{}' is required", first.field)
        } else {
            format!("field '{}' must be of type {}, not {}", first.field, first.expected, first.received)
        };
        Err(refuse::with(Code::UnprocessableEntity, message)
            .details(json!({"field": first.field, "expected": expected, "received": first.received})))
    }
}

/// An integer; a whole number written with a fraction (`3.0`) is none.
fn integer(value: &Value) -> Option<i64> {
    // A number beyond i64 is an integer all the same; every range check refuses the stand-in.
    value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX))
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// An object of strings.
pub(crate) fn string_map(value: &Value) -> Option<BTreeMap<String, String>> {
    value.as_object()?.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A value short enough to show in an error.
pub(crate) fn clip(text: &str) -> String {
    if text.chars().count() <= 200 { text.into() } else { text.chars().take(200).chain(['…']).collect() }
}

/// Checks an integer's range.
///
/// # Errors
/// 400 naming the field.
pub(crate) fn in_range(field: &str, value: i64, min: i64, max: i64) -> Result<i64, Problem> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        let range = format!("an integer from {min} to {max}");
        Err(refuse::invalid(field, format!("{field} must be {range}"), &[&range], json!(value)))
    }
}

/// Checks a text's length in characters, and that it holds no control characters.
///
/// # Errors
/// 400 naming the field.
pub(crate) fn of_length(field: &str, value: &str, max: usize) -> Result<(), Problem> {
    let length = value.chars().count();
    if length == 0 || length > max || value.chars().any(char::is_control) {
        let range = format!("1 to {max} printable characters");
        return Err(refuse::invalid(field, format!("{field} must have {range}"), &[&range], json!(clip(value))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    /// All faults are listed, the first is the field; null and absent are alike.
    #[test]
    fn every_fault_is_named() {
        let body = body(json!({"name": null, "replicas": 1.5, "labels": {"a": 1}, "ok": 3}));
        let mut fields = Fields::of(&body);
        fields.required_string("name");
        fields.required_integer("replicas");
        fields.string_map("labels");
        assert_eq!(fields.integer("ok"), Some(3));
        let problem = fields.finish().expect_err("faults");
        assert_eq!(problem.envelope().code, Code::UnprocessableEntity);
        let answer = problem.envelope().into_response("r");
        assert_eq!(answer.status(), 422);
    }

    /// Text that is not JSON is a bad request; JSON of another shape is a wrong type.
    #[test]
    fn json_in_strings() {
        let body = body(json!({"bad": "{", "shape": "[1]", "good": "{\"a\":\"b\"}", "none": "null"}));
        let mut fields = Fields::of(&body);
        assert_eq!(
            fields.json_text("bad", "object", string_map).expect_err("not JSON").envelope().code,
            Code::BadRequest
        );
        assert!(fields.json_text("good", "object", string_map).expect("JSON").is_some());
        assert!(fields.json_text("none", "object", string_map).expect("JSON").is_none());
        assert!(fields.json_text("shape", "object", string_map).expect("JSON").is_none());
        assert!(fields.finish().is_err());
    }
}
