//! Certificates of the control plane: who signs, what is signed, and where the files lie.

pub(crate) mod authority;
pub(crate) mod files;
