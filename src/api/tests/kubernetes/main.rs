//! The Kubernetes surface, driven in process over a replica in memory: no sockets, the same code as in production.

mod crud;
mod support;
