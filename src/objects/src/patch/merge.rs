//! Merge patches (RFC 7386): objects merge, null removes, everything else replaces.

use serde_json::Value;

use super::PatchError;

/// Applies a merge patch. The patch has been parsed with a depth limit, which bounds the recursion here.
pub fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("a merge patch is a JSON object".to_owned()));
    }
    let mut patched = current.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}
