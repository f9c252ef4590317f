//! [`WorkloadSpec`]: a workload's spec as sent, checked field by field. Unknown fields are kept. Must not know routes
//! or how workloads are stored.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use crate::admission;
use crate::problem::Problem;
use crate::store::WORKLOADS;

/// A spec of the right shape.
#[derive(Debug)]
pub(crate) struct WorkloadSpec {
    spec: Map<String, Value>,
    name: String,
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
        };
        fields.required_integer("replicas");
        fields.required_strings("command");
        fields.integer("memory_limit_mb");
        fields.number("cpu_limit_percent");
        fields.integer("gpu_count");
        fields.strings("gpu_ids");
        fields.string("image");
        fields.string_map("environment");
        fields.string_map("labels");
        fields.boolean("strict");
        fields.finish()?;
        Ok(spec)
    }

    /// Checks ranges: by the rules of the kind, which are the same for everyone who writes one.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let mut object = json!({"metadata": {"name": "checked", "namespace": "default"}, "spec": self.spec});
        admission::create(WORKLOADS.kind(), &mut object)
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
        WorkloadSpec::read(body).and_then(|spec| spec.check()).map_err(|problem| problem.envelope().code)
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
