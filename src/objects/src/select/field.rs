//! [`FieldSelector`]: `spec.nodeName=n,status.phase!=Failed`, over the fields a kind lets select by.

use std::borrow::Cow;

use serde_json::Value;

use crate::kind::Kind;
use crate::place;

/// Why a text is no field selector for a kind. The text is Kubernetes' own.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldSelectorError {
    /// The text cannot be read.
    #[error("invalid selector: '{selector}'; can't understand '{part}'")]
    Syntax {
        /// The whole text.
        selector: String,
        /// The part that is no term.
        part: String,
    },
    /// A backslash before something that needs none.
    #[error("invalid field selector: {value}: unescaped or unknown escape sequence")]
    Escape {
        /// The value that holds it.
        value: String,
    },
    /// The kind cannot be selected by this field.
    #[error("field label not supported: {0}")]
    NotSupported(String),
}

/// One term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// Field path, such as `spec.nodeName`.
    pub field: String,
    /// Wanted, or unwanted, value.
    pub value: String,
    /// Whether equality is wanted or unwanted.
    pub wanted: Wanted,
}

/// Which side of equality a term wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// `=`, `==`.
    Equal,
    /// `!=`.
    Different,
}

/// All terms must hold; none at all matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Matches every object.
    #[must_use]
    pub const fn everything() -> Self {
        Self { terms: Vec::new() }
    }

    /// Whether every object matches.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms, in the order given.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The value that `field` must equal, if some term says so: lets a read go straight to one object or index.
    #[must_use]
    pub fn required(&self, field: &str) -> Option<&str> {
        let mut terms = self.terms.iter().filter(|term| term.wanted == Wanted::Equal);
        terms.find(|term| term.field == field).map(|term| term.value.as_str())
    }

    /// Reads the text of a query parameter for objects of `kind`.
    ///
    /// # Errors
    /// Bad syntax, and fields the kind does not let select by; both are 400.
    pub fn parse(text: &str, kind: &Kind) -> Result<Self, FieldSelectorError> {
        let selector = Self::parse_any(text)?;
        let known = |field: &str| {
            field == "metadata.name"
                || (field == "metadata.namespace" && kind.is_namespaced())
                || kind.selectable_fields.iter().any(|known| known == field)
        };
        match selector.terms.iter().find(|term| !known(&term.field)) {
            Some(term) => Err(FieldSelectorError::NotSupported(term.field.clone())),
            None => Ok(selector),
        }
    }

    /// Reads a text without judging its fields.
    ///
    /// # Errors
    /// Bad syntax.
    pub fn parse_any(text: &str) -> Result<Self, FieldSelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|part| !part.is_empty()) {
            let syntax = || FieldSelectorError::Syntax { selector: text.to_owned(), part: part.to_owned() };
            let (field, wanted, value) = split_term(part).ok_or_else(syntax)?;
            terms.push(Term { field: field.to_owned(), wanted, value: unescape(value)? });
        }
        Ok(Self { terms })
    }

    /// Whether `object` is meant.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_with(|field| value_of(object, field))
    }

    /// Whether an object is meant whose fields are looked up by `field`.
    pub fn matches_with<'a>(&self, field: impl Fn(&str) -> Cow<'a, str>) -> bool {
        self.terms.iter().all(|term| (field(&term.field) == term.value) == (term.wanted == Wanted::Equal))
    }
}

/// Splits at commas that no backslash protects.
fn split_terms(text: &str) -> Vec<&str> {
    split_outside_escapes(text, ',')
}

fn split_outside_escapes(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == separator => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn split_term(part: &str) -> Option<(&str, Wanted, &str)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    let (wanted, value) = if let Some(value) = rest.strip_prefix("!=") {
        (Wanted::Different, value)
    } else {
        (Wanted::Equal, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?)
    };
    Some((field, wanted, value))
}

/// Takes the backslashes out of a value: `\\`, `\,` and `\=` are the only escapes.
fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let bad = || FieldSelectorError::Escape { value: value.to_owned() };
    let mut out = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(c) = letters.next() {
        match c {
            '\\' => out.push(letters.next().filter(|c| matches!(c, '\\' | ',' | '=')).ok_or_else(bad)?),
            ',' | '=' => return Err(bad()),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The text of `field` in `object`, as selectors compare it: absent is empty, absent flags are `false`.
#[must_use]
pub fn value_of<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    // Names of selectable fields that are not the path of what they mean.
    let path = match field {
        "status.successful" => "status.succeeded",
        "source" => "source.component",
        "reportingComponent" if place::get(object, &["reportingComponent"]).is_none() => "reportingController",
        other => other,
    };
    let steps: Vec<&str> = path.split('.').collect();
    match place::get(object, &steps) {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(scalar @ (Value::Bool(_) | Value::Number(_))) => Cow::Owned(scalar.to_string()),
        Some(_) => Cow::Borrowed(""),
        None => Cow::Borrowed(match field {
            "spec.unschedulable" | "spec.hostNetwork" => "false",
            "status.replicas" | "status.succeeded" | "status.successful" => "0",
            _ => "",
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Terms, their operators and escapes, against one object.
    #[test]
    fn matching() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "x": "a,b=c\\"}, "status": {"phase": "Running"}});
        let table = [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,status.phase!=Failed", true),
            ("metadata.name=b", false),
            ("spec.nodeName!=n", false),
            ("spec.nodeName=", false),
            ("spec.missing=", true),
            ("spec.unschedulable=false", true),
            (r"spec.x=a\,b\=c\\", true),
            (",,metadata.name=a,", true),
        ];
        for (text, expected) in table {
            let selector = FieldSelector::parse_any(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(selector.matches(&pod), expected, "{text}");
        }
        let selector = FieldSelector::parse_any("metadata.name=a,spec.nodeName!=n").expect("valid");
        assert_eq!(selector.required("metadata.name"), Some("a"));
        assert_eq!(selector.required("spec.nodeName"), None);
    }

    /// Each kind lets select by its own fields, and every kind by name; others are refused by name.
    #[test]
    fn fields_of_kinds() {
        let kind = |group, plural| crate::registry::registry().resource(group, "v1", plural).expect("a built-in kind");
        let table = [
            ("", "pods", "spec.nodeName=n,status.phase=Running,metadata.namespace=d", None),
            ("", "nodes", "spec.unschedulable=false", None),
            ("", "nodes", "metadata.namespace=d", Some("metadata.namespace")),
            ("", "events", "involvedObject.name=x,reason=y,type=Normal", None),
            ("", "secrets", "type=Opaque", None),
            ("", "namespaces", "status.phase=Active", None),
            ("apps", "deployments", "metadata.name=x", None),
            ("apps", "deployments", "spec.replicas=3", Some("spec.replicas")),
        ];
        for (group, plural, text, refused) in table {
            let error = FieldSelector::parse(text, kind(group, plural)).err().map(|error| error.to_string());
            let expected = refused.map(|field| format!("field label not supported: {field}"));
            assert_eq!(error, expected, "{plural} by {text}");
        }
        for kind in crate::registry::registry().kinds() {
            for field in &kind.selectable_fields {
                let empty = json!({});
                let _ = value_of(&empty, field);
                assert!(FieldSelector::parse(&format!("{field}=x"), kind).is_ok(), "{} {field}", kind.kind);
            }
        }
    }

    /// Bad syntax is named.
    #[test]
    fn refusals() {
        let error = FieldSelector::parse_any("metadata.name=a,b").expect_err("no operator");
        assert_eq!(error.to_string(), "invalid selector: 'metadata.name=a,b'; can't understand 'b'");
        for text in ["a!b", r"a=\x", "a=b=c", "!a"] {
            assert!(FieldSelector::parse_any(text).is_err(), "{text}");
        }
    }
}
