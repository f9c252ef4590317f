//! [`Problem`]: an error at the edge of either surface (architecture D19). The Kubernetes surface renders it as
//! `metav1.Status`, the Quilt surface as its envelope.
//!
//! It also says whether the answer rests on state, since such a refusal may only be given from a linearizable view,
//! and whether a write's fate is unknown, since then no answer may be given at all.

use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use quilt_objects::kind::Kind;
use quilt_objects::status::{Reason, Resource, Status};
use quilt_objects::validate::{FieldError, Path};
use quilt_raft::{DISK_RESERVE, ProposeError, ReadError};

use crate::commit::Refusal;
use crate::quilt::Envelope;

/// An error as the client will see it.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: Box<Status>,
    answerable: Answerable,
    /// What the Quilt surface says, where that is more than can be told from the Status.
    envelope: Option<Box<Envelope>>,
}

/// Whether an answer may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answerable {
    Yes,
    /// The write may or may not take effect: the connection is closed instead.
    No,
}

/// A response extension: the connection (HTTP/2: the stream) is to be ended without this answer, since the fate of
/// the write it would speak of is unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abandon;

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.status.message)
    }
}

impl std::error::Error for Problem {}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self { status: Box::new(status), answerable: Answerable::Yes, envelope: None }
    }
}

impl Refusal for Problem {
    fn rests_on_state(&self) -> bool {
        match &self.envelope {
            // Quilt routes judge ranges (400) after the objects of the path.
            Some(envelope) => envelope.code.rests_on_state(),
            None => matches!(self.code(), 401 | 403 | 404 | 409 | 410 | 422 | 429),
        }
    }
}

impl Problem {
    /// HTTP status.
    pub(crate) fn code(&self) -> u16 {
        self.status.code()
    }

    /// Whether an answer may be given at all.
    pub(crate) fn is_answerable(&self) -> bool {
        self.answerable == Answerable::Yes
    }

    /// What the Quilt surface says of it.
    pub(crate) fn envelope(&self) -> Envelope {
        self.envelope.as_deref().cloned().unwrap_or_else(|| Envelope::of(&self.status))
    }

    /// The same in these words of the Quilt surface.
    pub(crate) fn told(mut self, envelope: Envelope) -> Self {
        self.envelope = Some(Box::new(envelope));
        self
    }

    /// The same with one more cause.
    pub(crate) fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        *self.status = self.status.clone().with_cause(reason, message, field);
        self
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Status::bad_request(message).into()
    }

    /// 401.
    pub(crate) fn unauthorized() -> Self {
        Status::unauthorized().into()
    }

    /// 403 about an object.
    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Status::forbidden(kind.into(), name, why).into()
    }

    /// 404 of an object.
    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Status::not_found(kind.into(), name).into()
    }

    /// 404 of a path, resource, version or foreign cluster: one text for all.
    pub(crate) fn no_such_path() -> Self {
        Status::no_resource().into()
    }

    /// 405.
    pub(crate) fn method_not_allowed(kind: Option<&Kind>, verb: &str) -> Self {
        let resource = kind.map_or(Resource { group: "", plural: "", kind: "" }, Resource::from);
        Status::method_not_allowed(resource, verb).into()
    }

    /// 405 of a subresource that the table knows and nothing here serves.
    pub(crate) fn unserved(kind: &Kind, subresource: &str) -> Self {
        let message = format!("{}/{subresource} is not served by this control plane", kind.plural);
        Status::new(Reason::MethodNotAllowed, message).into()
    }

    /// 409 of a precondition.
    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Status::conflict(kind.into(), name, why).into()
    }

    /// 409 of a resourceVersion that is not the current one.
    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        Status::modified(kind.into(), name).into()
    }

    /// 410 of a resourceVersion older than history.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Status::expired(message).into()
    }

    /// 413.
    pub(crate) fn too_large(what: &str, bytes_max: usize) -> Self {
        Status::too_large(&format!("{what} is larger than the limit of {bytes_max} bytes")).into()
    }

    /// 415.
    pub(crate) fn unsupported_media_type(accepted: &[&str]) -> Self {
        Status::unsupported_media_type(accepted).into()
    }

    /// 422 about one field of an object.
    pub(crate) fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Status::invalid(kind.into(), name, errors).into()
    }

    /// 422 about a query parameter.
    pub(crate) fn invalid_option(parameter: &str, why: &str) -> Self {
        let options = Resource { group: "meta.k8s.io", plural: "listoptions", kind: "ListOptions" };
        let path = Path::new(parameter);
        Status::invalid(options, "", &[FieldError::forbidden(&path, why)]).into()
    }

    /// 500: a defect.
    pub(crate) fn internal(why: &str) -> Self {
        Status::internal(why).into()
    }

    /// 429 of a queue that is full, for reads and writes alike.
    fn busy(limit: &str) -> Self {
        Status::too_many_requests(format!("the control plane is busy: limit {limit} is reached"), 1).into()
    }

    /// 503.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Status::unavailable(message).into()
    }

    /// 504 of a resourceVersion this replica did not reach in time.
    pub(crate) fn version_ahead(asked: u64, current: u64) -> Self {
        Status::version_ahead(asked, current).into()
    }

    /// A write whose fate is unknown: no answer can be given.
    fn unknown_fate() -> Self {
        let status = Status::new(Reason::ServiceUnavailable, "the fate of the write is unknown");
        Self { status: Box::new(status), answerable: Answerable::No, envelope: None }
    }

    /// The `metav1.Status`, as in-stream errors of watches carry it.
    pub(crate) fn to_value(&self) -> serde_json::Value {
        self.status.to_value()
    }

    /// The HTTP answer with the message alone, as plain text.
    pub(crate) fn as_text(&self) -> Response<Body> {
        let mut response = self.response();
        *response.body_mut() = Body::from(format!("{}\n", self.status.message));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }

    /// The HTTP answer.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_value().to_string()));
        *response.status_mut() = StatusCode::from_u16(self.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.status.retry_after_seconds() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if !self.is_answerable() {
            response.extensions_mut().insert(Abandon);
        }
        response
    }
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotApplied | ProposeError::NotLeader => {
                Self::unavailable("no leader within the deadline; the write was not applied and never will be")
            }
            // A replica that goes away while the write is under way leaves nobody to find out what became of it.
            ProposeError::Unknown | ProposeError::Stopped => Self::unknown_fate(),
            ProposeError::Overloaded { limit } if limit == DISK_RESERVE => Status::too_many_requests(
                format!(
                    "the disk of the control plane is nearly full: reads and deletions go on, growth is refused until there is \
                     room again (limit {limit})"
                ),
                30,
            )
            .into(),
            ProposeError::Overloaded { limit } => Self::busy(limit),
            ProposeError::Invalid(message) => Status::too_large(&message).into(),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoLeader => Self::unavailable("no leader within the deadline"),
            ReadError::Overloaded { limit } => Self::busy(limit),
            ReadError::Compacted { floor } => {
                Self::expired(format!("The resourceVersion is too old: history begins after {floor}"))
            }
            ReadError::Ahead { current } => {
                Status::timeout(&format!("this replica is at resourceVersion {current} and did not catch up")).into()
            }
            ReadError::Dropped => Self::no_such_path().told(Envelope::not_found("cluster")),
            ReadError::Storage(message) => Self::internal(&message),
            ReadError::Stopped => Self::unavailable("this replica is stopping"),
        }
    }
}

/// The longest a NotOlderThan read waits for this replica to catch up.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(3);

impl From<crate::negotiate::NotAcceptable> for Problem {
    fn from(_: crate::negotiate::NotAcceptable) -> Self {
        const SERVED: [&str; 3] =
            ["application/json", "application/yaml", "application/json;as=Table;v=v1;g=meta.k8s.io"];
        Status::not_acceptable(&SERVED).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients are told when a write was not decided: to wait, to come again, or nothing at all.
    #[test]
    fn undecided_writes() {
        let lost = Problem::from(ProposeError::NotApplied).response();
        assert_eq!(
            (lost.status(), lost.extensions().get::<Abandon>().is_some()),
            (StatusCode::SERVICE_UNAVAILABLE, false)
        );
        let busy = Problem::from(ProposeError::Overloaded { limit: "requests" }).response();
        assert_eq!(
            (busy.status(), &busy.headers()[RETRY_AFTER]),
            (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from(1))
        );
        let large = Problem::from(ProposeError::Invalid("the transaction is too large".into())).response();
        assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
        for unknown in [ProposeError::Unknown, ProposeError::Stopped] {
            assert!(Problem::from(unknown).response().extensions().get::<Abandon>().is_some());
        }
    }

    /// Where too many reads wait already, one more is told to come again, in the same words as a write and with the name of the
    /// limit, and not that there is no leader.
    #[test]
    fn too_many_reads_are_told_as_too_many_writes_are() {
        let read = Problem::from(ReadError::Overloaded { limit: "READS_MAX" });
        let write = Problem::from(ProposeError::Overloaded { limit: "READS_MAX" });
        assert_eq!(read.to_value(), write.to_value());
        assert_eq!(read.envelope(), write.envelope());
        let response = read.response();
        assert_eq!(
            (response.status(), &response.headers()[RETRY_AFTER]),
            (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from(1))
        );
        assert!(read.to_string().contains("limit READS_MAX"), "{read}");
        assert_eq!(Problem::from(ReadError::NoLeader).code(), 503);
    }
}
