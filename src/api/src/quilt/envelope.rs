//! [`Problem`]: every refusal of a Quilt route, and its one rendering as the error envelope.
//!
//! Codes, statuses and the shape of `details` stand here once. Must not know routes or state.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use quilt_raft::{ProposeError, ReadError};
use serde_json::{Value, json};

/// The contract's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Body or header cannot be parsed.
    BadRequest,
    /// Right type, value out of range.
    ValidationFailed,
    /// No good credential.
    Unauthorized,
    /// Absent, deleted, or someone else's.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// A name is in use.
    NameTaken,
    /// No node subnet is free.
    PodCidrExhausted,
    /// The object belongs to a Kubernetes object.
    ManagedByKubernetes,
    /// The built-in cluster or tenant.
    BuiltIn,
    /// Body over the limit.
    PayloadTooLarge,
    /// Field missing or of the wrong JSON type.
    UnprocessableEntity,
    /// A limit of this server is reached for the moment.
    RateLimited,
    /// A defect.
    Internal,
    /// Certainly not applied, as there was no leader in time.
    NoLeader,
}

impl Code {
    const fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            Self::ValidationFailed => (StatusCode::BAD_REQUEST, "VALIDATION_FAILED"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            Self::NameTaken => (StatusCode::CONFLICT, "NAME_TAKEN"),
            Self::PodCidrExhausted => (StatusCode::CONFLICT, "POD_CIDR_EXHAUSTED"),
            Self::ManagedByKubernetes => (StatusCode::CONFLICT, "MANAGED_BY_KUBERNETES"),
            Self::BuiltIn => (StatusCode::CONFLICT, "BUILT_IN"),
            Self::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            Self::UnprocessableEntity => (StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE_ENTITY"),
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
            Self::NoLeader => (StatusCode::SERVICE_UNAVAILABLE, "NO_LEADER"),
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    /// Which of the contract's codes.
    pub(crate) code: Code,
    /// One sentence for the caller.
    pub(crate) message: String,
    details: Option<Value>,
    retry_after: Option<u64>,
    hint: Option<String>,
    allow: Option<&'static str>,
}

impl Problem {
    /// A problem with nothing but its sentence.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None, retry_after: None, hint: None, allow: None }
    }

    /// The one answer for every missing, unknown, expired, revoked or used-up credential.
    #[must_use]
    pub(crate) fn unauthorized() -> Self {
        Self::new(Code::Unauthorized, "a valid credential is required")
            .hint("send the credential this route asks for; it may be unknown, expired, revoked or used up")
    }

    /// The one answer for what is absent, deleted or someone else's.
    #[must_use]
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("{what} not found"))
    }

    /// A value that is out of range.
    pub(crate) fn invalid(field: &str, message: impl Into<String>, expected: &[&str], received: Value) -> Self {
        let mut details = json!({"field": field, "expected": expected});
        details["received"] = received;
        Self { details: Some(details), ..Self::new(Code::ValidationFailed, message) }
    }

    /// A name in use.
    #[must_use]
    pub(crate) fn name_taken(what: &str, name: &str, hint: &str) -> Self {
        let details = json!({"field": "name", "expected": ["an unused name"], "received": name});
        let message = format!("{what} name '{name}' is already in use");
        Self { details: Some(details), ..Self::new(Code::NameTaken, message) }.hint(hint)
    }

    /// The path is served with other methods.
    #[must_use]
    pub(crate) fn method_not_allowed(method: &str, allow: &'static str) -> Self {
        let details = json!({"field": "method", "expected": allow.split(", ").collect::<Vec<_>>(), "received": method});
        Self {
            details: Some(details),
            allow: Some(allow),
            ..Self::new(Code::MethodNotAllowed, format!("{method} is not allowed here; allowed: {allow}"))
        }
    }

    /// A defect of ours: logged with its cause, told without it.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a Quilt route failed inside");
        Self::new(Code::Internal, "internal error; the server's log has the cause under this request id")
    }

    /// No leader within the deadline: nothing was applied.
    #[must_use]
    pub(crate) fn no_leader() -> Self {
        Self { retry_after: Some(1), ..Self::new(Code::NoLeader, "no leader answered in time; nothing was changed") }
            .hint("send the request again")
    }

    /// More bytes than the limit of `what`.
    #[must_use]
    pub(crate) fn too_large(what: &str, field: &str, bytes_max: usize, received: Value) -> Self {
        let mut details = json!({"field": field, "expected": [format!("at most {bytes_max} bytes")]});
        details["received"] = received;
        Self::new(Code::PayloadTooLarge, format!("{what} is larger than {bytes_max} bytes")).details(details)
    }

    /// Adds `details`.
    #[must_use]
    pub(crate) fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Adds a hint.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the refusal was judged on state, so that it must be judged again on a linearizable view first.
    #[must_use]
    pub(crate) const fn rests_on_state(&self) -> bool {
        !matches!(self.code, Code::Internal | Code::NoLeader | Code::RateLimited)
    }

    /// The answer.
    #[must_use]
    pub(crate) fn into_response(self, request_id: &str) -> Response<Body> {
        let (status, code) = self.code.parts();
        let envelope = json!({
            "error": self.message, "error_code": code, "request_id": request_id,
            "details": self.details, "retry_after": self.retry_after, "hint": self.hint,
        });
        let mut response = Response::new(Body::from(envelope.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoLeader | ReadError::Stopped | ReadError::Ahead { .. } => Self::no_leader(),
            ReadError::Dropped => Self::not_found("cluster"),
            other => Self::internal(format!("{other:?}")),
        }
    }
}

/// Why a request has no ordinary answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// It is refused.
    Refused(Box<Problem>),
    /// A write's fate is unknown: the connection ends without a status, never with a wrong answer.
    FateUnknown,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Problem::from(error).into()
    }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Self {
        match error {
            // A replica that goes away while the write is under way leaves nobody to find out what became of it.
            ProposeError::Unknown | ProposeError::Stopped => Self::FateUnknown,
            ProposeError::NotApplied | ProposeError::NotLeader => Problem::no_leader().into(),
            ProposeError::Overloaded { limit } => Problem {
                retry_after: Some(1),
                ..Problem::new(Code::RateLimited, format!("this server has too much to do at the moment: {limit}"))
            }
            .into(),
            ProposeError::Invalid(cause) => Problem::internal(cause).into(),
        }
    }
}
