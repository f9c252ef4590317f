//! The refusals of Quilt routes, by name. Each is a [`Problem`] in the words of the contract. Must not know routes or
//! state.

use quilt_raft::AskError;
use serde_json::{Value, json};

use super::envelope::{Code, Envelope};
use crate::problem::Problem;

/// A refusal with nothing but its sentence.
pub(crate) fn with(code: Code, message: impl Into<String>) -> Problem {
    told(Envelope::new(code, message))
}

fn told(envelope: Envelope) -> Problem {
    Problem::from(envelope.status()).told(envelope)
}

/// A refusal that was given before.
pub(crate) fn again(envelope: Envelope) -> Problem {
    told(envelope)
}

/// The one answer for every missing, unknown, expired, revoked or used-up credential.
pub(crate) fn unauthorized() -> Problem {
    with(Code::Unauthorized, "a valid credential is required")
        .hint("send the credential this route asks for; it may be unknown, expired, revoked or used up")
}

/// The one answer for what is absent, deleted or someone else's.
pub(crate) fn not_found(what: &str) -> Problem {
    told(Envelope::not_found(what))
}

/// A value that is out of range.
pub(crate) fn invalid(field: &str, message: impl Into<String>, expected: &[&str], received: Value) -> Problem {
    let mut details = json!({"field": field, "expected": expected});
    details["received"] = received;
    with(Code::ValidationFailed, message).details(details)
}

/// A name in use.
pub(crate) fn name_taken(what: &str, name: &str, hint: &str) -> Problem {
    with(Code::NameTaken, format!("{what} name '{name}' is already in use"))
        .details(json!({"field": "name", "expected": ["an unused name"], "received": name}))
        .hint(hint)
}

/// The path is served with other methods.
pub(crate) fn method_not_allowed(method: &str, allow: &'static str) -> Problem {
    let details = json!({"field": "method", "expected": allow.split(", ").collect::<Vec<_>>(), "received": method});
    let message = format!("{method} is not allowed here; allowed: {allow}");
    told(Envelope { details, allow: Some(allow), ..Envelope::new(Code::MethodNotAllowed, message) })
}

/// A defect of ours.
pub(crate) fn internal(cause: impl std::fmt::Display) -> Problem {
    Problem::internal(&cause.to_string())
}

/// No leader within the deadline: nothing was applied.
pub(crate) fn no_leader() -> Problem {
    Problem::unavailable("no leader answered in time; nothing was changed")
}

/// What the leader was asked to do from its memory and did not do in time. That it could not yet, or not any more, is what a
/// change of leaders looks like, and passes.
pub(crate) fn not_done(error: AskError) -> Problem {
    match error {
        AskError::NoLeader | AskError::Stopped => no_leader(),
        AskError::Failed(reason) => Problem::unavailable(format!("the leader cannot do that now: {reason}")),
        AskError::Unknown(_) | AskError::TooLarge { .. } => internal(error),
    }
}

/// More bytes than the limit of `what`.
pub(crate) fn too_large(what: &str, field: &str, bytes_max: usize, received: Value) -> Problem {
    let mut details = json!({"field": field, "expected": [format!("at most {bytes_max} bytes")]});
    details["received"] = received;
    with(Code::PayloadTooLarge, format!("{what} is larger than {bytes_max} bytes")).details(details)
}

impl Problem {
    /// The same with `details`.
    pub(crate) fn details(self, details: Value) -> Self {
        let envelope = Envelope { details, ..self.envelope() };
        self.told(envelope)
    }

    /// The same with a hint.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        let envelope = Envelope { hint: Some(hint.into()), ..self.envelope() };
        self.told(envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader that does not do what it was asked for is unavailable, and says why; only what can never be done is a
    /// defect.
    #[test]
    fn a_leader_that_cannot_now_is_unavailable() {
        let code = |error| not_done(error).code();
        assert_eq!(code(AskError::NoLeader), 503);
        assert_eq!(code(AskError::Stopped), 503);
        assert_eq!(code(AskError::Unknown("reconcile".into())), 500);
        assert_eq!(code(AskError::TooLarge { bytes: 2, limit: 1 }), 500);
        let failed = not_done(AskError::Failed("the controllers are not running".into()));
        assert_eq!(failed.code(), 503);
        assert!(failed.to_string().contains("not running"), "{failed}");
    }
}
