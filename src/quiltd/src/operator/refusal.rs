//! [`Refusal`]: why an operator's request was not done, in the envelope of every other error of this API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use quilt_api::roster::RosterError;
use quilt_raft::{AdminError, ProposeError, ReadError};
use serde_json::json;

/// A request that was not done.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    error: String,
    hint: String,
}

const ASK_AGAIN: &str = "ask again, or another replica; quiltd status tells how they are";

impl Refusal {
    fn new(status: StatusCode, code: &'static str, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, code, error: error.into(), hint: hint.into() }
    }

    pub(super) fn unauthorized() -> Self {
        let hint = "send it as X-Quilt-Admin-Key or as Bearer token";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a valid admin key is needed", hint)
    }

    pub(super) fn unavailable(error: &dyn std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", error.to_string(), ASK_AGAIN)
    }

    /// A field of the request, and what was expected there.
    pub(super) fn invalid(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", error, hint)
    }

    /// What the control plane holds or is made of keeps the request from being done.
    pub(super) fn conflict(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "CONFLICT", error, hint)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "error": self.error, "error_code": self.code, "request_id": uuid::Uuid::new_v4().to_string(),
            "details": null, "retry_after": null, "hint": self.hint,
        });
        (self.status, Json(body)).into_response()
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::unavailable(&error)
    }
}

impl From<AdminError> for Refusal {
    fn from(error: AdminError) -> Self {
        let text = error.to_string();
        match error {
            AdminError::UnknownMember { .. } => {
                Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", text, "quiltd operator raft list-peers shows them")
            }
            AdminError::Unsafe(change) => {
                let silent: Vec<String> = change.silent.iter().map(|voter| voter.id.to_string()).collect();
                let hint = match change.silent.first() {
                    Some(voter) => format!(
                        "bring replica {} back, or remove it first: quiltd operator raft remove {}",
                        silent.join(", "),
                        voter.id
                    ),
                    None => "add another replica first".to_owned(),
                };
                Self::new(StatusCode::CONFLICT, "UNSAFE_MEMBERSHIP", text, hint)
            }
            AdminError::Refused(why) => Self::conflict(why, "quiltd operator raft list-peers shows the members"),
            AdminError::Timeout(why) => {
                let hint = "asking again is safe; quiltd operator raft list-peers shows how far it is";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", why, hint)
            }
            AdminError::NotLeader { .. } | AdminError::Propose(_) | AdminError::Stopped => Self::unavailable(&text),
        }
    }
}

impl From<RosterError> for Refusal {
    fn from(error: RosterError) -> Self {
        let text = error.to_string();
        match error {
            RosterError::NumberUsed { next, .. } => Self::conflict(text, format!("use number {next}")),
            RosterError::AddressTaken { id, .. } => {
                let hint = format!("if that replica is gone for good: quiltd operator raft remove {id}");
                Self::conflict(text, hint)
            }
            RosterError::Token => {
                let hint = "make a new one: quiltd token create";
                Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", text, hint)
            }
            RosterError::NoToken(_) => {
                Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", text, "quiltd token list shows them")
            }
            RosterError::Propose(ProposeError::Unknown) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", text, "asking again is safe")
            }
            RosterError::Read(_) | RosterError::Propose(_) | RosterError::Deadline => Self::unavailable(&text),
            RosterError::Stored(_) => {
                let hint = "the directory's root.key must be the one the control plane was made with";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", text, hint)
            }
        }
    }
}
