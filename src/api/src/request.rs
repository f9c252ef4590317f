//! [`Call`]: one authenticated-to-be request for a resource, with everything a verb needs and nothing it does not.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt;
use quilt_objects::kind::Kind;
use quilt_proto::{ClusterId, Key, KeyPrefix};
use quilt_raft::{Consistency, ReadError, View};

use crate::access::{Admitted, ClusterPath, Credentials, admit};
use crate::authz::Attributes;
use crate::commit::Refusal;
use crate::context::Api;
use crate::problem::{CATCH_UP, Problem};
use crate::query::{Query, ReadAt};

/// Largest request body on Kubernetes routes (architecture D18).
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;

/// One request for a resource.
#[derive(Clone)]
pub(crate) struct Call {
    /// Shared state.
    pub(crate) api: Arc<Api>,
    /// The cluster asked.
    pub(crate) cluster: ClusterPath,
    /// The kind of the resource.
    pub(crate) kind: &'static Kind,
    /// Namespace; empty for all, or for cluster-scoped kinds.
    pub(crate) namespace: String,
    /// Object name; empty for the collection.
    pub(crate) name: String,
    /// Query parameters.
    pub(crate) query: Query,
    /// Request headers.
    pub(crate) headers: HeaderMap,
    /// What the request shows of itself.
    pub(crate) credentials: Credentials,
    /// What it wants to do.
    pub(crate) attributes: Attributes,
    /// How long it may be held.
    pub(crate) deadline: Duration,
}

impl Call {
    /// The object `name` of `kind`, for a request of the other surface, which judges credentials by itself.
    pub(crate) fn of_object(api: &Arc<Api>, cluster: &str, kind: &'static Kind, namespace: &str, name: &str) -> Self {
        let mut headers = HeaderMap::new();
        // By this name the fields it changes are known where someone keeps account of them.
        headers.insert(USER_AGENT, HeaderValue::from_static("quilt"));
        Self {
            api: Arc::clone(api),
            cluster: ClusterPath { id: ClusterId(cluster.into()), named: true },
            kind,
            namespace: namespace.into(),
            name: name.into(),
            query: Query::default(),
            headers,
            credentials: Credentials::default(),
            attributes: Attributes::default(),
            deadline: Duration::ZERO,
        }
    }

    /// Lets the request in, judged on `view`.
    pub(crate) fn admit(&self, view: &View) -> Result<Admitted, Problem> {
        admit(view, &self.credentials, &self.cluster, &self.attributes)
    }

    /// The key of object `name` of this call's kind and namespace.
    pub(crate) fn key(&self, name: &str) -> Result<Key, Problem> {
        self.key_of(self.kind, &self.namespace, name)
    }

    /// The key of an object of any kind in this call's cluster.
    pub(crate) fn key_of(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Key, Problem> {
        Key::new(self.cluster.id.as_str(), &kind.storage_group, &kind.plural, namespace, name)
            .map_err(|error| Problem::bad_request(error.to_string()))
    }

    /// The keys this call's collection consists of.
    pub(crate) fn prefix(&self) -> Result<KeyPrefix, Problem> {
        let (cluster, group, resource) = (self.cluster.id.as_str(), &self.kind.storage_group, &self.kind.plural);
        if self.namespace.is_empty() {
            KeyPrefix::resource(cluster, group, resource)
        } else {
            KeyPrefix::namespace(cluster, group, resource, &self.namespace)
        }
        .map_err(|error| Problem::bad_request(error.to_string()))
    }

    /// A local view, as new as this replica has it: the base of writes.
    pub(crate) async fn stale(&self) -> Result<View, Problem> {
        Ok(self.api.replica.read(Consistency::Stale, self.deadline).await?)
    }

    /// A linearizable view.
    pub(crate) async fn latest(&self) -> Result<View, Problem> {
        Ok(self.api.replica.read(Consistency::Linearizable, self.deadline).await?)
    }

    /// The view a read asked for, with the request let in on it; a refusal is given from a linearizable view only.
    pub(crate) async fn view(&self, at: ReadAt) -> Result<View, Problem> {
        let view = match at {
            ReadAt::Latest => self.latest().await?,
            ReadAt::Any => self.stale().await?,
            ReadAt::NotOlderThan(version) | ReadAt::Exact(version) => self.at_least(version).await?,
        };
        if let Err(refusal) = self.admit(&view) {
            if at == ReadAt::Latest || !refusal.rests_on_state() {
                return Err(refusal);
            }
            self.admit(&self.latest().await?)?;
        }
        // Who may read is judged by the present, also where the past is read.
        match at {
            ReadAt::Exact(version) => Ok(view.at(version.into())?),
            _ => Ok(view),
        }
    }

    /// A view at `version` or newer; waits a little for this replica to get there.
    pub(crate) async fn at_least(&self, version: u64) -> Result<View, Problem> {
        let wait = self.deadline.min(CATCH_UP);
        match self.api.replica.read(Consistency::AtLeast(version.into()), wait).await {
            Ok(view) => Ok(view),
            Err(ReadError::Ahead { current }) => Err(Problem::version_ahead(version, current.get())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Bytes of an oversized body that are read and thrown away, so that its sender gets the refusal and can go on using
/// the connection. Beyond it the connection ends with the refusal.
const DISCARDED_BYTES_MAX: u64 = 16 << 20;

/// Reads a body whole, up to `bytes_max`.
pub(crate) async fn read_body(mut body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let announced = body.size_hint().lower();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    if announced > limit.saturating_add(DISCARDED_BYTES_MAX) {
        return Err(Problem::too_large("the request body", bytes_max));
    }
    let mut read = Vec::with_capacity(usize::try_from(announced.min(limit)).unwrap_or(0));
    let mut discarded = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Problem::bad_request(format!("the request body was not received: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if discarded == 0 && read.len() + data.len() <= bytes_max {
            read.extend_from_slice(&data);
            continue;
        }
        read = Vec::new();
        discarded += u64::try_from(data.len()).unwrap_or(u64::MAX);
        if discarded > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if discarded > 0 { Err(Problem::too_large("the request body", bytes_max)) } else { Ok(read.into()) }
}
