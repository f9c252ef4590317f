//! Authentication by keys and tokens: what a request presents, whom it proves, and what a commit must recheck.
//!
//! Everything here is a synchronous look at a view; which view, and looking again before a refusal, is the caller's.
//! Must not know routes or answers.

pub mod credential;
pub mod secret;
pub mod token;

pub use credential::{Presented, Principal, Proof};
pub use secret::{Digest, Secret, SecretKind};
pub use token::spent_by_restore;
