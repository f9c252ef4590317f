//! The Kubernetes surface, driven in process over a replica in memory: no sockets, the same code as in production.

mod bad_input;
mod connection;
mod crud;
mod deletion;
mod documents;
mod history;
mod lists;
mod logs;
mod patches;
mod secrets;
mod services;
mod subresources;
mod support;
mod watches;
