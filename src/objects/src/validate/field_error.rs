//! [`FieldError`]: one complaint about one field, worded as Kubernetes words it.

use std::fmt;

use serde_json::Value;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorReason {
    /// It must be given.
    Required,
    /// Its value breaks a rule.
    Invalid,
    /// Its value is not one of the allowed words.
    NotSupported,
    /// Its value was used before.
    Duplicate,
    /// It must not be given here.
    Forbidden,
    /// Its text has too many bytes.
    TooLong,
    /// Its list has too many items.
    TooMany,
    /// It refers to something that is not there.
    NotFound,
}

impl FieldErrorReason {
    /// The word of `details.causes[].reason`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }
}

/// One complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// What is wrong.
    pub reason: FieldErrorReason,
    /// Path of the field, such as `spec.containers[0].name`.
    pub field: String,
    /// The complaint without the path, such as `Required value`: the `message` of a cause.
    pub body: String,
}

impl FieldError {
    fn new(reason: FieldErrorReason, field: &Path, value: Option<&str>, detail: &str) -> Self {
        let mut body = reason.text().to_owned();
        for part in value.into_iter().chain(Some(detail).filter(|detail| !detail.is_empty())) {
            body.push_str(": ");
            body.push_str(part);
        }
        Self { reason, field: field.to_string(), body }
    }

    /// The field must be given.
    #[must_use]
    pub fn required(field: &Path, detail: &str) -> Self {
        Self::new(FieldErrorReason::Required, field, None, detail)
    }

    /// The value breaks a rule.
    #[must_use]
    pub fn invalid(field: &Path, value: &Value, detail: &str) -> Self {
        Self::new(FieldErrorReason::Invalid, field, Some(&value.to_string()), detail)
    }

    /// The value is not one of `supported`.
    #[must_use]
    pub fn not_supported(field: &Path, value: &Value, supported: &[&str]) -> Self {
        let words: Vec<String> = supported.iter().map(|word| format!("\"{word}\"")).collect();
        let detail = format!("supported values: {}", words.join(", "));
        Self::new(FieldErrorReason::NotSupported, field, Some(&value.to_string()), &detail)
    }

    /// The value was used before.
    #[must_use]
    pub fn duplicate(field: &Path, value: &Value) -> Self {
        Self::new(FieldErrorReason::Duplicate, field, Some(&value.to_string()), "")
    }

    /// The field must not be given, or not be changed, here.
    #[must_use]
    pub fn forbidden(field: &Path, detail: &str) -> Self {
        Self::new(FieldErrorReason::Forbidden, field, None, detail)
    }

    /// The text, or all texts together, may have `bytes_max` bytes.
    #[must_use]
    pub fn too_long(field: &Path, bytes_max: usize) -> Self {
        Self::new(FieldErrorReason::TooLong, field, None, &format!("may not be more than {bytes_max} bytes"))
    }

    /// The list may have `items_max` items.
    #[must_use]
    pub fn too_many(field: &Path, items: usize, items_max: usize) -> Self {
        let detail = format!("must have at most {items_max} items");
        Self::new(FieldErrorReason::TooMany, field, Some(&items.to_string()), &detail)
    }

    /// The value names something that is not there.
    #[must_use]
    pub fn not_found(field: &Path, value: &Value) -> Self {
        Self::new(FieldErrorReason::NotFound, field, Some(&value.to_string()), "")
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

/// Where a field is, built step by step while validation walks down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one or several steps, dots included.
    #[must_use]
    pub fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// A field of this place.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// An item of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of the map here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The wording of each sort of complaint.
    #[test]
    fn wording() {
        let path = Path::new("spec.containers").index(0).child("name");
        let table = [
            (FieldError::required(&path, ""), "spec.containers[0].name: Required value"),
            (FieldError::invalid(&path, &json!("A"), "bad"), "spec.containers[0].name: Invalid value: \"A\": bad"),
            (FieldError::invalid(&path, &json!(3), ""), "spec.containers[0].name: Invalid value: 3"),
            (
                FieldError::not_supported(&path, &json!("x"), &["a", "b"]),
                "spec.containers[0].name: Unsupported value: \"x\": supported values: \"a\", \"b\"",
            ),
            (FieldError::duplicate(&path, &json!("x")), "spec.containers[0].name: Duplicate value: \"x\""),
            (FieldError::forbidden(&path, "no"), "spec.containers[0].name: Forbidden: no"),
            (FieldError::too_long(&path, 9), "spec.containers[0].name: Too long: may not be more than 9 bytes"),
            (FieldError::too_many(&path, 9, 2), "spec.containers[0].name: Too many: 9: must have at most 2 items"),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(Path::new("data").key("a.b").to_string(), "data[a.b]");
    }
}
