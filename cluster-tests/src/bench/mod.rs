//! The store measured side by side with etcd, as clients see both: three real processes each, on one host and one disk,
//! TLS everywhere, the same load from the same client code.
//!
//! Times on one host mean little by themselves; what is claimed are ratios of neighbouring slices, and counts. A slice
//! of ours and a slice of the peer's make a pair ([`pairs`]); the disk is probed before each ([`probe`]), and a pair
//! whose probes differ too much is thrown away and counted. Load comes from a process of its own ([`load`]) that also
//! reads what the servers have used meanwhile ([`usage`]).

pub mod case;
pub mod client;
pub mod etcd;
pub mod fanout;
pub mod gap;
pub mod histogram;
pub mod load;
pub mod pairs;
pub mod probe;
pub mod report;
pub mod run;
pub mod servers;
pub mod soak;
pub mod syncs;
pub mod usage;

/// Generated clients.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    unused_qualifications,
    elided_lifetimes_in_paths
)]
pub mod wire {
    /// The operator's key-value service.
    pub mod quilt {
        tonic::include_proto!("quilt.kv.v1");
    }
    /// etcd's API, as far as it is used.
    pub mod etcd {
        tonic::include_proto!("etcdserverpb");
    }
}
