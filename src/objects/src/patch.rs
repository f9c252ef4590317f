//! Patches: JSON patch, merge patch, strategic merge patch. Each takes an object and a body and gives a new, checked object.
//!
//! Which object, and whether it may be written, is for others to know. Server-side apply is in a module of its own.

pub mod json;
pub mod merge;
pub mod strategic;

use serde_json::Value;
use thiserror::Error;

use crate::decode::{self, DecodeError, Decoded, FieldValidation, Parsed};
use crate::kind::Target;
use crate::status::Status;

/// The forms of patches that change an existing object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`: a list of operations (RFC 6902).
    Json,
    /// `application/merge-patch+json`: a partial object, null removes (RFC 7386).
    Merge,
    /// `application/strategic-merge-patch+json`: a partial object whose lists merge by the rules of the type; built-in kinds only.
    Strategic,
}

/// Why a patch was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PatchError {
    /// The body is no patch of this form.
    #[error("the patch is not valid: {0}")]
    Malformed(String),
    /// The patch does not fit the object it is for.
    #[error("the patch cannot be applied: {0}")]
    Unprocessable(String),
    /// More work or a larger outcome than one request may ask for.
    #[error("the patch is too large: {0}")]
    TooLarge(String),
    /// The body is no JSON, or the outcome is no valid object of the kind.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl PatchError {
    /// The answer to the client.
    pub fn status(&self) -> Status {
        match self {
            Self::Malformed(_) => Status::bad_request(self.to_string()),
            Self::Unprocessable(_) => Status::unprocessable(self.to_string()),
            Self::TooLarge(_) => Status::too_large(&self.to_string()),
            Self::Decode(error) => error.status(),
        }
    }
}

/// Applies a patch to `current` and checks the outcome against the type, as a body would be.
pub fn apply<'a>(
    target: impl Into<Target<'a>>,
    patch_type: PatchType,
    current: &Value,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, PatchError> {
    let target = target.into();
    let Parsed { value: patch, duplicates } = decode::parse(body)?;
    let value = match patch_type {
        PatchType::Json => json::apply(current, patch)?,
        PatchType::Merge => merge::apply(current, &patch)?,
        PatchType::Strategic => strategic::apply(target.node, current, patch)?,
    };
    Ok(decode::parsed(target, Parsed { value, duplicates }, validation)?)
}

#[cfg(test)]
mod tests;
