//! JSON bodies.

use serde_json::{Map, Value};

use super::check::{Misfit, check};
use super::parse::{Parsed, parse};
use super::{DecodeError, Decoded, FieldValidation, Place, name_of};
use crate::kind::{Target, split_api_version};

/// Decodes a JSON body that must hold an object of the expected kind.
pub fn json<'a>(
    target: impl Into<Target<'a>>,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    parsed(target, parse(body)?, validation)
}

/// Checks a tree that came from elsewhere: a YAML body, or the outcome of a patch.
pub fn value<'a>(
    target: impl Into<Target<'a>>,
    value: Value,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    parsed(target, Parsed { value, duplicates: Vec::new() }, validation)
}

/// Checks a document whose duplicate keys are known.
pub fn parsed<'a>(
    target: impl Into<Target<'a>>,
    parsed: Parsed,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let target = target.into();
    let Parsed { mut value, duplicates } = parsed;
    let Value::Object(map) = &value else {
        return Err(DecodeError::NotAnObject { found: name_of(&value) });
    };
    type_meta(target, map)?;
    let mut unknown = Vec::new();
    check(target.node, &mut value, &Place::ROOT, &mut unknown).map_err(|misfit| field_error(target, misfit))?;
    complete(target, &mut value);
    let complaints: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field {path:?}"))
        .chain(duplicates.iter().map(|path| format!("duplicate field {path:?}")))
        .collect();
    let warnings = match validation {
        FieldValidation::Strict if !complaints.is_empty() => {
            return Err(DecodeError::Strict {
                kind: target.kind.to_owned(),
                version: target.version.to_owned(),
                complaints,
            });
        }
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => complaints,
    };
    Ok(Decoded { object: value, warnings })
}

pub(super) fn field_error(target: Target<'_>, misfit: Misfit) -> DecodeError {
    DecodeError::Field {
        kind: target.kind.to_owned(),
        version: target.version.to_owned(),
        path: misfit.path,
        problem: misfit.problem,
    }
}

/// Refuses bodies that say they are something else.
fn type_meta(target: Target<'_>, map: &Map<String, Value>) -> Result<(), DecodeError> {
    let text = |name: &str| match map.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(field_error(
            target,
            Misfit { path: name.to_owned(), problem: format!("expected a string, got {}", name_of(other)) },
        )),
    };
    expect_type(target, text("apiVersion")?, text("kind")?)
}

/// Every object carries its type and has metadata, empty or not.
pub(super) fn complete(target: Target<'_>, object: &mut Value) {
    let Value::Object(map) = object else { return };
    map.insert("apiVersion".to_owned(), target.api_version().into());
    map.insert("kind".to_owned(), target.kind.into());
    if target.node.field("metadata").is_some() && !map.contains_key("metadata") {
        map.insert("metadata".to_owned(), Value::Object(Map::new()));
    }
}

/// An absent name is fine; `DeleteOptions` may come in the version of any group.
pub(super) fn expect_type(target: Target<'_>, api_version: &str, kind: &str) -> Result<(), DecodeError> {
    let other_version = !api_version.is_empty() && split_api_version(api_version) != (target.group, target.version);
    if other_version && target.kind != "DeleteOptions" {
        return Err(DecodeError::ApiVersion { found: api_version.to_owned(), expected: target.api_version() });
    }
    if !kind.is_empty() && kind != target.kind {
        return Err(DecodeError::Kind { found: kind.to_owned(), expected: target.kind.to_owned() });
    }
    Ok(())
}
