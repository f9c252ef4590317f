//! The whole agent against a control plane in the test's own process, with real TLS, real processes and real files.

mod failover;
mod probes;
mod process;
mod support;
