//! The metadata only the control plane writes: identity and times of new objects, the state of deletion. Clients may
//! send these fields; what they say is replaced.

use quilt_objects::place;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use crate::problem::Problem;

/// Gives a new object its identity. Generation and status are the object layer's.
pub(crate) fn born(object: &mut Value, uid: &str, now: &str) {
    place::set(object, &["metadata", "uid"], uid);
    place::set(object, &["metadata", "creationTimestamp"], now);
}

/// Raises the generation by one, where the object has one.
pub(crate) fn bump_generation(object: &mut Value) {
    if let Some(generation) = place::int(object, &["metadata", "generation"]) {
        place::set(object, &["metadata", "generation"], generation + 1);
    }
}

/// The finalizers of an object.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let items = place::items(object, &["metadata", "finalizers"]);
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether deletion has begun.
pub(crate) fn is_deleting(object: &Value) -> bool {
    place::get(object, &["metadata", "deletionTimestamp"]).is_some()
}

/// Letters a generated name ends with: no vowels and no look-alikes, as upstream.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest base kept before the generated letters.
const BASE_MAX: usize = 58;

/// A name from `generateName`.
pub(crate) fn generated_name(base: &str) -> Result<String, Problem> {
    let mut random = [0; 5];
    SystemRandom::new().fill(&mut random).map_err(|_| Problem::internal("the system gives no randomness"))?;
    let kept: String = base.chars().take(BASE_MAX).collect();
    let letters = random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    Ok(kept.chars().chain(letters).collect())
}
