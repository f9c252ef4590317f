//! [`Envelope`]: what the Quilt surface says of a [`Problem`], and its one rendering.
//!
//! Codes, statuses and the shape of `details` stand here once, and so does how the object layer's refusals are told to
//! clients that know no `metav1.Status`. Must not know routes or state.
//!
//! [`Problem`]: crate::problem::Problem

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use quilt_objects::status::{Cause, Reason, Status};
use serde_json::{Map, Value, json};

use super::reply::REPLAYED;

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
    /// An idempotency key was used for another request.
    IdempotencyKeyReused,
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
    /// Whether a refusal with this code was judged on state, so that it must be judged again on a linearizable view.
    pub(crate) const fn rests_on_state(self) -> bool {
        // A used key stays used: no newer view can say otherwise.
        !matches!(self, Self::Internal | Self::NoLeader | Self::RateLimited | Self::IdempotencyKeyReused)
    }

    /// Refusals that a repetition of the request gets again.
    const RECORDED: [Self; 5] =
        [Self::NotFound, Self::NameTaken, Self::PodCidrExhausted, Self::ManagedByKubernetes, Self::BuiltIn];

    /// Whether a repetition of the request gets this refusal again.
    pub(crate) fn is_recorded(self) -> bool {
        Self::RECORDED.contains(&self)
    }

    const fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            Self::ValidationFailed => (StatusCode::BAD_REQUEST, "VALIDATION_FAILED"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            Self::NameTaken => (StatusCode::CONFLICT, "NAME_TAKEN"),
            Self::PodCidrExhausted => (StatusCode::CONFLICT, "POD_CIDR_EXHAUSTED"),
            Self::IdempotencyKeyReused => (StatusCode::CONFLICT, "IDEMPOTENCY_KEY_REUSED"),
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

/// What the Quilt surface says of a problem.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Envelope {
    /// Which of the contract's codes.
    pub(crate) code: Code,
    /// One sentence for the caller.
    pub(crate) message: String,
    /// An object, or null.
    pub(crate) details: Value,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// The methods of the route, for a 405.
    pub(crate) allow: Option<&'static str>,
    /// It was said before, to the same request.
    pub(crate) replayed: bool,
}

impl Envelope {
    /// An envelope with nothing but its sentence.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Value::Null,
            retry_after: None,
            hint: None,
            allow: None,
            replayed: false,
        }
    }

    /// The one answer for what is absent, deleted or someone else's.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("{what} not found"))
    }

    /// What has to be kept to say it again.
    pub(crate) fn record(&self) -> Value {
        json!({"code": self.code.parts().1, "message": self.message, "details": self.details, "hint": self.hint})
    }

    /// What was kept.
    pub(crate) fn recorded(kept: &Map<String, Value>) -> Option<Self> {
        let word = kept.get("code")?.as_str()?;
        let code = Code::RECORDED.into_iter().find(|code| code.parts().1 == word)?;
        let hint = kept.get("hint").and_then(Value::as_str).map(str::to_owned);
        let details = kept.get("details").cloned().unwrap_or_default();
        Some(Self { details, hint, replayed: true, ..Self::new(code, kept.get("message")?.as_str()?) })
    }

    /// What is said of a Status that the object layer gave.
    pub(crate) fn of(status: &Status) -> Self {
        let cause = status.details.as_ref().and_then(|details| details.causes.first());
        let code = match status.reason {
            // What the object layer forbids, a client of these routes asked for by a value.
            Some(Reason::Invalid | Reason::Forbidden) => Code::ValidationFailed,
            Some(Reason::Unauthorized) => Code::Unauthorized,
            Some(Reason::NotFound | Reason::Gone | Reason::Expired) => Code::NotFound,
            Some(Reason::MethodNotAllowed) => Code::MethodNotAllowed,
            Some(Reason::AlreadyExists) => Code::NameTaken,
            Some(Reason::RequestEntityTooLarge) => Code::PayloadTooLarge,
            Some(Reason::TooManyRequests | Reason::Conflict) => Code::RateLimited,
            Some(Reason::ServiceUnavailable | Reason::Timeout | Reason::ServerTimeout) => Code::NoLeader,
            Some(Reason::InternalError) | None => Code::Internal,
            Some(Reason::BadRequest | Reason::NotAcceptable | Reason::UnsupportedMediaType) => Code::BadRequest,
        };
        if code == Code::Internal {
            // A defect of ours: logged with its cause, told without it.
            tracing::error!(cause = %status, "a Quilt route failed inside");
            return Self::new(code, "internal error; the server's log has the cause under this request id");
        }
        let message = match &status.details {
            Some(details) if status.reason == Some(Reason::Invalid) && !details.causes.is_empty() => {
                details.causes.iter().map(sentence).collect::<Vec<_>>().join("; ")
            }
            _ => status.message.clone(),
        };
        let retries = matches!(code, Code::NoLeader | Code::RateLimited);
        Self {
            details: cause.map_or(Value::Null, details_of),
            retry_after: retries.then(|| status.retry_after_seconds().map_or(1, u64::from)),
            hint: retries.then(|| "send the request again".to_owned()),
            ..Self::new(code, message)
        }
    }

    /// The Status of the same meaning, for whoever knows nothing else.
    pub(crate) fn status(&self) -> Status {
        let reason = match self.code {
            Code::BadRequest => Reason::BadRequest,
            Code::ValidationFailed | Code::UnprocessableEntity => Reason::Invalid,
            Code::Unauthorized => Reason::Unauthorized,
            Code::NotFound => Reason::NotFound,
            Code::MethodNotAllowed => Reason::MethodNotAllowed,
            Code::NameTaken => Reason::AlreadyExists,
            Code::PodCidrExhausted | Code::IdempotencyKeyReused | Code::ManagedByKubernetes | Code::BuiltIn => {
                Reason::Conflict
            }
            Code::PayloadTooLarge => Reason::RequestEntityTooLarge,
            Code::RateLimited => Reason::TooManyRequests,
            Code::Internal => Reason::InternalError,
            Code::NoLeader => Reason::ServiceUnavailable,
        };
        Status::new(reason, self.message.clone())
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
        if self.replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// The field a cause is about. Quilt's bodies are the object's `spec`, so that is left out.
fn field_of(cause: &Cause) -> &str {
    cause.field.strip_prefix("spec.").unwrap_or(&cause.field)
}

/// A cause as a sentence.
fn sentence(cause: &Cause) -> String {
    if cause.field.is_empty() { cause.message.clone() } else { format!("{}: {}", field_of(cause), cause.message) }
}

/// A cause as `details`. They name a field of the body, not a place inside it.
fn details_of(cause: &Cause) -> Value {
    let path = field_of(cause);
    let field = path.split_once('[').map_or(path, |(field, _index)| field);
    if field.is_empty() { Value::Null } else { json!({"field": field, "expected": [cause.message]}) }
}

#[cfg(test)]
mod tests {
    use quilt_objects::registry::registry;
    use quilt_objects::validate::{FieldError, Path};

    use super::*;
    use crate::problem::Problem;

    /// What the object layer refuses, Quilt tells by its own codes, naming the field; a defect's cause stays inside.
    #[test]
    fn statuses_become_envelopes() {
        let kind = registry().resource("quilt.sh", "v1", "workloads").expect("served");
        let replicas = Path::new("spec.replicas");
        let cases = [
            (Problem::invalid(kind, "w", &[FieldError::required(&replicas, "")]), "VALIDATION_FAILED", "replicas"),
            (Problem::invalid(kind, "w", &[FieldError::too_long(&replicas, 3)]), "VALIDATION_FAILED", "replicas"),
            (Problem::forbidden(kind, "w", "no"), "VALIDATION_FAILED", ""),
            (Problem::not_found(kind, "w"), "NOT_FOUND", ""),
            (Problem::too_large("the object", 3), "PAYLOAD_TOO_LARGE", ""),
            (Problem::unavailable("no leader"), "NO_LEADER", ""),
            (Problem::conflict(kind, "w", "busy"), "RATE_LIMITED", ""),
        ];
        for (problem, code, field) in cases {
            let envelope = problem.envelope();
            assert_eq!(envelope.code.parts().1, code, "{problem}");
            assert_eq!(envelope.details["field"].as_str().unwrap_or_default(), field, "{problem}");
            assert_eq!(envelope.retry_after.is_some(), envelope.hint.is_some());
        }
        let defect = Problem::internal("the secret cause").envelope();
        assert_eq!(defect.code, Code::Internal);
        assert!(!defect.message.contains("secret"));
    }
}
