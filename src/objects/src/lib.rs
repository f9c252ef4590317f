//! The Kubernetes object model as data: kinds, types, decoding, defaults and patches, all driven by one table.
//!
//! Pure: no IO, no clock, no randomness, no async. It must not know how objects are stored, replicated or served over HTTP.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic, clippy::cast_possible_truncation, clippy::indexing_slicing)]

pub mod apply;
pub mod canonical;
pub mod convert;
pub mod decode;
pub mod default;
pub mod discovery;
pub mod event;
pub mod first;
pub mod hooks;
pub mod int_or_string;
pub mod kind;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod place;
pub mod quantity;
pub mod registry;
pub mod schema;
pub mod select;
pub mod status;
pub mod table;
pub mod validate;
