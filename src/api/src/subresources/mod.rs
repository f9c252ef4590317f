//! Subresources that are more than a part of their object, and the kinds that are only ever created and never stored.

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod finalize;
pub(crate) mod log;
pub(crate) mod review;
pub(crate) mod scale;
