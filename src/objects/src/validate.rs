//! Validation: whether an object may be stored, and if not, which fields say why.

mod field_error;

pub use field_error::{FieldError, FieldErrorReason, Path};
