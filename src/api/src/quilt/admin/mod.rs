//! `/api/admin/...`: what the operator does to tenants, their keys, and clusters.

pub(crate) mod keys;
pub(crate) mod tenants;
