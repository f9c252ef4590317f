//! `quilt-api`: everything a client reaches over HTTP.
//!
//! The Kubernetes surface (route, verbs, subresources, negotiation), the Quilt routes, authentication, authorization
//! and limits. One implementation of each verb serves every kind; what is special about a kind is data of
//! `quilt-objects` or an entry of `lifecycle`, never a branch in a verb. This crate must not know openraft, RocksDB,
//! controllers or the scheduler: it sees one `quilt_raft::Replica`.
#![forbid(unsafe_code)]

mod access;
mod admission;
mod agent;
pub mod authn;
mod authz;
mod body;
pub mod bootstrap;
mod commit;
pub mod context;
mod descriptions;
pub mod directory;
mod documents;
pub mod endpoints;
mod health;
pub mod identity;
mod kubernetes;
mod leaf;
mod lifecycle;
mod metadata;
pub mod negotiate;
mod problem;
mod query;
pub mod quilt;
mod records;
mod render;
mod request;
mod reserved;
pub mod roster;
pub mod route;
pub mod seal;
mod selection;
pub mod server;
mod store;
mod subresources;
mod verbs;

pub use context::{AgentCredential, Api, ApiOptions, RootKey};
pub use identity::{Identity, IdentityKind, PeerCertificate};
pub use leaf::AcceptedLeaf;
pub use server::{Abandoned, Server};
