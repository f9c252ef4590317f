//! JSON patches (RFC 6902), with limits on operations, on copied values and on depth.
//!
//! A short patch can copy a document into itself over and over; the budgets end that before memory or stack do.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;
use crate::decode::{MAX_DEPTH, MAX_VALUES};

/// Most operations in one patch, as upstream.
pub const MAX_OPERATIONS: usize = 10_000;
/// Most values that copies and moves of one patch may touch: eight full-size bodies.
const MAX_TOUCHED: usize = 8 * MAX_VALUES;

/// Applies a JSON patch: all operations or none.
pub fn apply(current: &Value, patch: Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::Malformed("a JSON patch is a list of operations".to_owned()));
    };
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        return Err(PatchError::TooLarge(format!("{count} operations, the limit is {MAX_OPERATIONS}")));
    }
    let mut patched = current.clone();
    let mut budget = Budget { touched: 0, copied: 0 };
    for (index, operation) in operations.into_iter().enumerate() {
        let operation: PatchOperation = serde_json::from_value(operation)
            .map_err(|error| PatchError::Malformed(format!("operation {index}: {error}")))?;
        budget.charge(&patched, &operation, index)?;
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(&operation))
            .map_err(|error| refused(&operation, index, &error.kind))?;
    }
    Ok(patched)
}

struct Budget {
    touched: usize,
    copied: usize,
}

impl Budget {
    fn charge(&mut self, document: &Value, operation: &PatchOperation, index: usize) -> Result<(), PatchError> {
        let path = operation.path();
        let size = match operation {
            PatchOperation::Add(add) => measure(&add.value),
            PatchOperation::Replace(replace) => measure(&replace.value),
            PatchOperation::Copy(copy) => self.source(document, copy.from.as_str()),
            PatchOperation::Move(moved) => self.source(document, moved.from.as_str()),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
        };
        if matches!(operation, PatchOperation::Copy(_)) {
            self.copied += size.values;
        }
        if self.touched > MAX_TOUCHED || self.copied > MAX_VALUES {
            return Err(PatchError::TooLarge(format!("operation {index} copies or moves too many values")));
        }
        if path.count() + size.depth > MAX_DEPTH {
            return Err(PatchError::TooLarge(format!("operation {index} nests deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn source(&mut self, document: &Value, from: &str) -> Size {
        let size = document.pointer(from).map_or(Size { values: 0, depth: 0 }, measure);
        self.touched += size.values;
        size
    }
}

struct Size {
    values: usize,
    depth: usize,
}

/// Values and levels of a tree; its depth is already bounded, so is the recursion.
fn measure(value: &Value) -> Size {
    let of = |inner: &mut dyn Iterator<Item = &Value>| {
        inner.map(measure).fold(Size { values: 1, depth: 1 }, |sum, size| Size {
            values: sum.values + size.values,
            depth: sum.depth.max(size.depth + 1),
        })
    };
    match value {
        Value::Array(items) => of(&mut items.iter()),
        Value::Object(map) => of(&mut map.values()),
        _ => Size { values: 1, depth: 0 },
    }
}

fn refused(operation: &PatchOperation, index: usize, kind: &PatchErrorKind) -> PatchError {
    let path = operation.path();
    PatchError::Unprocessable(match kind {
        PatchErrorKind::TestFailed => format!("operation {index}: testing value {path} failed"),
        PatchErrorKind::InvalidFromPointer => format!("operation {index}: the source of {path} does not exist"),
        PatchErrorKind::InvalidPointer => format!("operation {index}: {path} does not exist"),
        PatchErrorKind::CannotMoveInsideItself => format!("operation {index}: {path} cannot be moved inside itself"),
        _ => format!("operation {index}: {path}: {kind}"),
    })
}
