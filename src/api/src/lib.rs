//! `quilt-api`: everything a client reaches over HTTP.
//!
//! The Kubernetes surface (route, verbs, subresources, negotiation), the Quilt routes, authentication, authorization
//! and limits. One implementation of each verb serves every kind; what is special about a kind is data of
//! `quilt-objects` or an entry of `lifecycle`, never a branch in a verb. This crate must not know openraft, RocksDB,
//! controllers or the scheduler: it sees one `quilt_raft::Replica`.
#![forbid(unsafe_code)]

pub mod authn;
pub mod context;
pub mod directory;
pub mod identity;
pub mod negotiate;
pub mod route;
pub mod seal;

pub use context::{AgentCredential, Api, ApiOptions, RootKey};
pub use identity::{Identity, IdentityKind, PeerCertificate};
