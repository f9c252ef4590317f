//! Whole clusters of real binaries on loopback, for tests that drive them as users do: kubectl, HTTP, signals.
//!
//! Nothing here knows the inside of a replica. A test starts a [`cluster::Cluster`], talks to its replicas through [`client::Client`] and
//! [`kubectl::Kubectl`], keeps writing with [`writers::Writers`] and looking with [`watch::Watch`] while it kills and starts replicas, and
//! waits on conditions with [`wait::until`], never for a time.
#![forbid(unsafe_code)]

pub mod bench;
pub mod binary;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod fault;
pub mod history;
pub mod kubectl;
pub mod museum;
pub mod oracle;
pub mod pages;
pub mod proxy;
pub mod random;
pub mod reader;
pub mod rig;
pub mod rules;
mod starvation;
pub mod terminal;
mod validator;
pub mod wait;
pub mod watch;
pub mod workload;
pub mod writers;
