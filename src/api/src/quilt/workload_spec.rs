//! [`WorkloadSpec`]: a workload's spec as sent, checked field by field. Unknown fields are kept. Must not know routes
//! or how workloads are stored.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::envelope::Problem;
use super::fields::{Fields, clip, in_range, of_length};

/// Largest spec: what a stored object may hold, less room for metadata and status.
const SPEC_BYTES_MAX: usize = 1 << 20;

/// A spec of the right shape.
#[derive(Debug)]
pub(crate) struct WorkloadSpec {
    spec: Map<String, Value>,
    name: String,
    replicas: i64,
    command: Vec<String>,
    memory_limit_mb: Option<i64>,
    cpu_limit_percent: Option<f64>,
    gpu_count: Option<i64>,
    gpu_ids: Option<Vec<String>>,
}

impl WorkloadSpec {
    /// Reads the shape.
    ///
    /// # Errors
    /// 422 naming every field that is missing or of the wrong type.
    pub(crate) fn read(body: &Map<String, Value>) -> Result<Self, Problem> {
        let mut fields = Fields::of(body);
        let spec = Self {
            // Null equals absent: it is not kept.
            spec: body
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            name: fields.required_string("name"),
            replicas: fields.required_integer("replicas"),
            command: fields.required_strings("command"),
            memory_limit_mb: fields.integer("memory_limit_mb"),
            cpu_limit_percent: fields.number("cpu_limit_percent"),
            gpu_count: fields.integer("gpu_count"),
            gpu_ids: fields.strings("gpu_ids"),
        };
        fields.string("image");
        fields.string_map("environment");
        fields.string_map("labels");
        fields.boolean("strict");
        fields.finish()?;
        Ok(spec)
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        of_length("name", &self.name, 253)?;
        in_range("replicas", self.replicas, 1, 10_000)?;
        if self.command.is_empty() {
            let expected = ["at least one string"];
            return Err(Problem::invalid("command", "command must not be empty", &expected, json!([])));
        }
        if let Some(megabytes) = self.memory_limit_mb {
            in_range("memory_limit_mb", megabytes, 1, i64::from(i32::MAX))?;
        }
        if let Some(percent) = self.cpu_limit_percent
            && (percent <= 0.0 || percent > 1e9)
        {
            let expected = ["a number above 0"];
            return Err(Problem::invalid(
                "cpu_limit_percent",
                "cpu_limit_percent must be above 0",
                &expected,
                json!(percent),
            ));
        }
        let count = in_range("gpu_count", self.gpu_count.unwrap_or(0), 0, 1024)?;
        if let Some(ids) = &self.gpu_ids {
            let distinct: BTreeSet<&String> = ids.iter().collect();
            if i64::try_from(ids.len()) != Ok(count) || distinct.len() != ids.len() {
                let expected = [format!("{count} distinct ids, as gpu_count says")];
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                let message = "gpu_ids must hold exactly gpu_count ids, none repeated";
                return Err(Problem::invalid("gpu_ids", message, &expected, json!(ids)));
            }
        }
        for field in ["environment", "labels"] {
            let map = self.spec.get(field).and_then(Value::as_object);
            if let Some(bad) = map.and_then(|map| map.keys().find(|key| key.is_empty() || key.contains(['\0', '=']))) {
                let message = format!("{field}: names must not be empty or hold '='");
                return Err(Problem::invalid(field, message, &["non-empty names without '='"], json!(clip(bad))));
            }
        }
        let bytes = Value::Object(self.spec.clone()).to_string().len();
        if bytes > SPEC_BYTES_MAX {
            let range = format!("at most {SPEC_BYTES_MAX} bytes");
            return Err(Problem::invalid("spec", format!("the spec must have {range}"), &[&range], json!(bytes)));
        }
        Ok(())
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The document, as sent.
    pub(crate) fn document(&self) -> Value {
        Value::Object(self.spec.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quilt::envelope::Code;

    fn code(body: &Value) -> Result<(), Code> {
        let body = body.as_object().expect("object");
        WorkloadSpec::read(body).and_then(|spec| spec.check()).map_err(|problem| problem.code)
    }

    /// The contract's table of bad `replicas` and GPU fields, and what is fine.
    #[test]
    fn specs_are_judged_by_the_table() {
        let with = |field: &str, value: Value| {
            let mut body = json!({"name": "w", "replicas": 1, "command": ["x"]});
            body[field] = value;
            code(&body)
        };
        assert_eq!(with("unknown", json!({"a": [1]})), Ok(()));
        assert_eq!(with("image", Value::Null), Ok(()));
        assert_eq!(with("cpu_limit_percent", json!(12.5)), Ok(()));
        for (value, expected) in [
            (json!(0), Code::ValidationFailed),
            (json!(-1), Code::ValidationFailed),
            (json!(10_001), Code::ValidationFailed),
            (json!(1.5), Code::UnprocessableEntity),
            (json!("3"), Code::UnprocessableEntity),
            (Value::Null, Code::UnprocessableEntity),
        ] {
            assert_eq!(with("replicas", value.clone()), Err(expected), "{value}");
        }
        assert_eq!(with("command", json!([])), Err(Code::ValidationFailed));
        assert_eq!(with("command", json!("x")), Err(Code::UnprocessableEntity));
        assert_eq!(with("gpu_ids", json!(["a"])), Err(Code::ValidationFailed));
        assert_eq!(with("name", json!("")), Err(Code::ValidationFailed));
        assert_eq!(with("memory_limit_mb", json!(0)), Err(Code::ValidationFailed));
        assert_eq!(with("cpu_limit_percent", json!(0)), Err(Code::ValidationFailed));
        assert_eq!(with("environment", json!({"A": 1})), Err(Code::UnprocessableEntity));
    }
}
