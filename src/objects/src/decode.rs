//! Request bodies to checked objects: JSON, and protobuf for built-in kinds.
//!
//! What comes out has only declared fields of the declared types, no nulls, and no zeros Go would not have written; so equal objects have
//! equal bytes whichever way they came in. Defaults, validation and storage are not known here.

mod check;
mod json;
mod parse;
mod protobuf;
mod scalar;
mod wire;

use serde_json::Value;
use thiserror::Error;

use crate::kind::Target;
use crate::registry::Registry;
use crate::status::Status;

pub use json::{json, parsed, value};
pub use parse::{Parsed, parse};
pub use protobuf::{is_protobuf, protobuf};

/// Largest body, as upstream.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Deepest nesting of objects and lists (quality budget); keeps recursion bounded.
pub const MAX_DEPTH: usize = 64;
/// Most values in one body: bounds the memory of the tree, about 40 bytes a value beside its text.
pub const MAX_VALUES: usize = 250_000;
/// Most field complaints reported for one body.
const MAX_COMPLAINTS: usize = 100;

/// What the client wants to hear about fields that are unknown or written twice (`fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in warnings.
    #[default]
    Warn,
    /// Refuse the body.
    Strict,
}

impl FieldValidation {
    /// The value of the query parameter; empty means the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "Warn" | "" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// A checked object and what to warn the client about.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, `apiVersion` and `kind` filled in.
    pub object: Value,
    /// Texts for `Warning: 299` headers.
    pub warnings: Vec<String>,
}

/// Why a body was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// More bytes than a body may have.
    #[error("the body has {bytes} bytes, the limit is {MAX_BODY_BYTES}")]
    TooLarge {
        /// Size of the body.
        bytes: usize,
    },
    /// Deeper than allowed.
    #[error("the body nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More values than allowed.
    #[error("the body holds more than {MAX_VALUES} values")]
    TooMany,
    /// No JSON.
    #[error("the body is not valid JSON: {0}")]
    Syntax(String),
    /// Not a protobuf envelope, or a broken message.
    #[error("the body is not a valid protobuf object: {0}")]
    Wire(String),
    /// The body is something other than an object.
    #[error("the body must be a JSON object, not {found}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// The body says it is of another version.
    #[error("the API version in the data ({found}) does not match the expected API version ({expected})")]
    ApiVersion {
        /// What the body says.
        found: String,
        /// What the path says.
        expected: String,
    },
    /// The body says it is of another kind.
    #[error("the kind in the data ({found}) does not match the expected kind ({expected})")]
    Kind {
        /// What the body says.
        found: String,
        /// What the path says.
        expected: String,
    },
    /// A value of the wrong type or form.
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: {path}: {problem}")]
    Field {
        /// Expected kind.
        kind: String,
        /// Expected version.
        version: String,
        /// Path of the field.
        path: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// Unknown or duplicate fields under strict validation.
    #[error("{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}", complaints.join(", "))]
    Strict {
        /// Expected kind.
        kind: String,
        /// Expected version.
        version: String,
        /// One text per field.
        complaints: Vec<String>,
    },
}

impl DecodeError {
    /// The answer to the client.
    pub fn status(&self) -> Status {
        match self {
            Self::TooLarge { .. } => Status::too_large(&self.to_string()),
            _ => Status::bad_request(self.to_string()),
        }
    }
}

/// Decodes either form: protobuf when the envelope's magic is there, else JSON.
pub fn any<'a>(
    registry: &Registry,
    target: impl Into<Target<'a>>,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    if is_protobuf(body) { protobuf(registry, target, body) } else { json(target, body, validation) }
}

/// A place in a document, for messages; built on the stack while walking.
#[derive(Clone, Copy)]
struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Place<'a> {
    const ROOT: Place<'static> = Place { parent: None, step: Step::Root };

    fn key(&'a self, key: &'a str) -> Place<'a> {
        Place { parent: Some(self), step: Step::Key(key) }
    }

    fn index(&'a self, index: usize) -> Place<'a> {
        Place { parent: Some(self), step: Step::Index(index) }
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if self.parent.is_some_and(|parent| matches!(parent.step, Step::Root)) => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// What a value is, in the words of messages.
fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
