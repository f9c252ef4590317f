//! The store as plain keys and values (`quilt.kv.v1`): the same calls of the replica that the Kubernetes and Quilt
//! surfaces make, without objects around them. Off unless `--kv-api` is given; every call needs the admin key.
//!
//! All keys lie in one cluster range that no directory entry names, so nothing here reaches an object and no surface
//! reaches what is here. Must not know kinds, routes or how the replica does it.

mod codec;
mod credentials;
mod place;
mod service;
#[cfg(test)]
mod tests;
mod watch;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    unused_qualifications,
    elided_lifetimes_in_paths
)]
mod wire {
    tonic::include_proto!("quilt.kv.v1");
}

use axum::body::Body;
use axum::http::{Request, Response};
use futures::FutureExt;
use hyper::body::Incoming;
use quilt_raft::Replica;
use tower::Service as _;

pub(crate) use credentials::Credentials;
use service::Service;
use wire::kv_server::KvServer;

/// Whether a replica serves the store to its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvApi {
    Off,
    On,
}

impl From<bool> for KvApi {
    fn from(given: bool) -> Self {
        if given { Self::On } else { Self::Off }
    }
}

/// What all paths of the service begin with.
const PATHS: &str = "/quilt.kv.v1.Kv/";

/// The service on an API listener. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Kv {
    server: KvServer<Service>,
}

impl Kv {
    pub(crate) fn new(replica: Replica, credentials: Credentials) -> Self {
        Self { server: KvServer::new(Service::new(replica, credentials)) }
    }

    /// Whether a request is for this service.
    pub(crate) fn serves(path: &str) -> bool {
        path.starts_with(PATHS)
    }

    /// Answers one request.
    pub(crate) fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let answered = self.server.clone().call(request);
        answered.map(|Ok(response)| response.map(Body::new))
    }
}
