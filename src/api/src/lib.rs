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
pub mod quilt;
pub mod route;
pub mod seal;
mod store;
