//! The replica as the layers above use it: alone in memory, and as a whole control plane over real loopback TLS, on disk.
//! One binary, since each links RocksDB and openraft anew.
#![allow(clippy::disallowed_methods)]

#[path = "../../src/transport/authority.rs"]
mod authority;
mod braked;
mod broken_off;
mod cluster;
mod damage;
mod harness;
mod identity;
mod membership;
mod memory;
mod slow_disk;
mod traffic;
mod watches;

// What the authority takes from above it.
use quilt_raft::{PeerIdentity, peer_name};
