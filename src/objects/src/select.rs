//! Selectors: which objects a list, a watch or a controller means, by labels or by fields.

pub mod field;
pub mod label;

pub use field::FieldSelector;
pub use label::LabelSelector;
