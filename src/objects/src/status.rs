//! [`Status`]: `metav1.Status`, the answer of every refusal and of most deletes, in the words clients match on.
//!
//! Constructors are typed per reason, so code, reason and wording cannot disagree. This module knows nothing of HTTP
//! beyond the status code, and of authorization only how a denial is worded.

use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::validate::FieldError;

/// A resource as messages name it: `pods`, `deployments.apps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural, such as `deployments`.
    pub plural: &'a str,
    /// Kind, such as `Deployment`.
    pub kind: &'a str,
}

impl<'a> From<&'a Kind> for Resource<'a> {
    fn from(kind: &'a Kind) -> Self {
        Self { group: &kind.group, plural: &kind.plural, kind: &kind.kind }
    }
}

impl Resource<'_> {
    /// `pods`, `deployments.apps`.
    #[must_use]
    pub fn qualified(&self) -> String {
        qualify(self.plural, self.group)
    }

    /// `Pod`, `Deployment.apps`.
    #[must_use]
    pub fn qualified_kind(&self) -> String {
        qualify(self.kind, self.group)
    }
}

fn qualify(word: &str, group: &str) -> String {
    if group.is_empty() { word.to_owned() } else { format!("{word}.{group}") }
}

/// The machine-readable reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// 400.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: the object changed, or a precondition or field manager disagrees.
    Conflict,
    /// 410: what was asked for is gone for good.
    Gone,
    /// 410: a continue token or resource version is too old.
    Expired,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 422.
    Invalid,
    /// 429.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 500: the server could not finish in time and may be asked again.
    ServerTimeout,
    /// 503.
    ServiceUnavailable,
    /// 504.
    Timeout,
}

impl Reason {
    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }

    /// The HTTP status code.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::ServerTimeout => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// One cause in `details`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason, such as `FieldValueRequired`.
    pub reason: String,
    /// Text.
    pub message: String,
    /// The field, empty when the cause is about none.
    pub field: String,
}

impl From<&FieldError> for Cause {
    fn from(error: &FieldError) -> Self {
        Self { reason: error.reason.word().to_owned(), message: error.body.clone(), field: error.field.clone() }
    }
}

/// `details`: what the status is about. Empty texts are not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Plural of the resource, or the kind where a kind was refused.
    pub kind: String,
    /// Uid of the object.
    pub uid: String,
    /// Causes.
    pub causes: Vec<Cause>,
    /// When to come again; 0 is not written.
    pub retry_after_seconds: u32,
}

impl Details {
    fn of(resource: Resource<'_>, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            ..Self::default()
        }
    }

    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut out = Map::new();
                for (key, text) in [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)] {
                    if !text.is_empty() {
                        out.insert(key.to_owned(), text.as_str().into());
                    }
                }
                Value::Object(out)
            });
            out.insert("causes".to_owned(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".to_owned(), self.retry_after_seconds.into());
        }
        Value::Object(out)
    }
}

/// Who wanted what: everything a denial names.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// User name.
    pub user: &'a str,
    /// Verb, such as `get`.
    pub verb: &'a str,
    /// Resource.
    pub resource: Resource<'a>,
    /// Subresource, empty for the main resource.
    pub subresource: &'a str,
    /// Namespace; `None` at cluster scope.
    pub namespace: Option<&'a str>,
    /// Name of the object, empty for collections.
    pub name: &'a str,
}

/// A refusal, or the answer of a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Why; `None` is success.
    pub reason: Option<Reason>,
    /// Text for people.
    pub message: String,
    /// What it is about.
    pub details: Option<Details>,
    /// `metadata.continue`: where an expired list can go on.
    pub continue_token: Option<String>,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    /// A refusal without details.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason: Some(reason), message: message.into(), details: None, continue_token: None }
    }

    fn about(reason: Reason, message: String, details: Details) -> Self {
        Self { details: Some(details), ..Self::new(reason, message) }
    }

    /// The same with one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let cause = Cause { reason: reason.to_owned(), message: message.into(), field: field.to_owned() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The same with `details.retryAfterSeconds`, which the HTTP layer also sends as `Retry-After`.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.reason.map_or(200, Reason::code)
    }

    /// Seconds for the `Retry-After` header.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0)
    }

    /// The JSON body.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        let Some(map) = out.as_object_mut() else { return out };
        if let Some(token) = &self.continue_token {
            map.insert("metadata".to_owned(), json!({"continue": token}));
        }
        if !self.message.is_empty() {
            map.insert("message".to_owned(), self.message.as_str().into());
        }
        if let Some(details) = &self.details {
            map.insert("details".to_owned(), details.to_value());
        }
        if let Some(reason) = self.reason {
            map.insert("status".to_owned(), "Failure".into());
            map.insert("reason".to_owned(), reason.word().into());
            map.insert("code".to_owned(), reason.code().into());
        }
        out
    }

    /// A delete that took effect. `kind` is the plural, or for Pods the kind (generated clients read it as one).
    #[must_use]
    pub fn deleted(resource: Resource<'_>, kind: &str, name: &str, uid: &str) -> Self {
        let details = Details { kind: kind.to_owned(), uid: uid.to_owned(), ..Details::of(resource, name) };
        Self { reason: None, message: String::new(), details: Some(details), continue_token: None }
    }

    /// Plain success, as evictions and bindings answer. They carry the code too.
    #[must_use]
    pub const fn success() -> Self {
        Self { reason: None, message: String::new(), details: None, continue_token: None }
    }

    /// 400 with the parser's text.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 401, one text for all causes.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// 403 with a text that says why.
    #[must_use]
    pub fn forbidden(resource: Resource<'_>, name: &str, why: &str) -> Self {
        let message = match (resource.plural.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", resource.qualified()),
            (false, false) => format!("{} \"{name}\" is forbidden: {why}", resource.qualified()),
        };
        Self::about(Reason::Forbidden, message, Details::of(resource, name))
    }

    /// 403 of the authorizer, naming user, verb, resource and namespace.
    #[must_use]
    pub fn denied(attempt: Attempt<'_>) -> Self {
        let Attempt { user, verb, resource, subresource, namespace, name } = attempt;
        let slash = if subresource.is_empty() { "" } else { "/" };
        let place = namespace.map_or_else(
            || " at the cluster scope".to_owned(),
            |namespace| format!(" in the namespace \"{namespace}\""),
        );
        let why = format!(
            "User \"{user}\" cannot {verb} resource \"{}{slash}{subresource}\" in API group \"{}\"{place}",
            resource.plural, resource.group
        );
        Self::forbidden(resource, name, &why)
    }

    /// 403 for a path that is no resource.
    #[must_use]
    pub fn denied_path(user: &str, verb: &str, path: &str) -> Self {
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
        Self::about(Reason::Forbidden, message, Details::default())
    }

    /// 404: no object of this name.
    #[must_use]
    pub fn not_found(resource: Resource<'_>, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Self::about(Reason::NotFound, message, Details::of(resource, name))
    }

    /// 404: no such resource, version or path.
    #[must_use]
    pub fn no_resource() -> Self {
        Self::about(Reason::NotFound, "the server could not find the requested resource".to_owned(), Details::default())
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed(resource: Resource<'_>, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", resource.qualified());
        Self::about(Reason::MethodNotAllowed, message, Details::of(resource, ""))
    }

    /// 406, listing what can be answered.
    #[must_use]
    pub fn not_acceptable(media_types: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", media_types.join(", "));
        Self::new(Reason::NotAcceptable, message)
    }

    /// 409: the name is taken.
    #[must_use]
    pub fn already_exists(resource: Resource<'_>, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::about(Reason::AlreadyExists, message, Details::of(resource, name))
    }

    /// 409: every generated name that was tried is taken.
    #[must_use]
    pub fn generate_name_conflict(resource: Resource<'_>, name: &str) -> Self {
        let message = format!(
            "{} \"{name}\" already exists, the server was not able to generate a unique name for the object",
            resource.qualified()
        );
        Self::about(Reason::AlreadyExists, message, Details::of(resource, name)).with_retry_after(1)
    }

    /// 409 with a text that says what disagrees.
    #[must_use]
    pub fn conflict(resource: Resource<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::about(Reason::Conflict, message, Details::of(resource, name))
    }

    /// 409: the client changed an old version.
    #[must_use]
    pub fn modified(resource: Resource<'_>, name: &str) -> Self {
        const WHY: &str = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, WHY)
    }

    /// 409: the uid the client asked for is not the object's.
    #[must_use]
    pub fn uid_precondition(resource: Resource<'_>, name: &str, wanted: &str, actual: &str) -> Self {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}");
        Self::conflict(resource, name, &why)
    }

    /// 409: the resource version the client asked for is not the object's.
    #[must_use]
    pub fn version_precondition(resource: Resource<'_>, name: &str, wanted: &str, actual: &str) -> Self {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {actual}"
        );
        Self::conflict(resource, name, &why)
    }

    /// 409: other field managers own what an apply wants to set.
    #[must_use]
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        Self::about(Reason::Conflict, message.into(), Details { causes, ..Details::default() })
    }

    /// 410 with a text.
    #[must_use]
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(Reason::Gone, message)
    }

    /// 410: history before a resource version is compacted.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 410: a watch asked for a start that history no longer has.
    #[must_use]
    pub fn too_old(wanted: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {wanted} ({oldest})"))
    }

    /// 410: the snapshot of a list is gone; `token` goes on from the same key at the present version.
    #[must_use]
    pub fn list_expired(token: String) -> Self {
        const MESSAGE: &str = "The provided continue parameter is too old to display a consistent list result. You can \
                               start a new list without the continue parameter, or use the continue token in this \
                               response to retrieve the remainder of the results. Continuing with the provided token \
                               results in an inconsistent list - objects that were created, modified, or deleted \
                               between the time the first chunk was returned and now may show up in the list.";
        Self { continue_token: Some(token), ..Self::expired(MESSAGE) }
    }

    /// 413.
    #[must_use]
    pub fn too_large(why: &str) -> Self {
        Self::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
    }

    /// 415, listing what can be read.
    #[must_use]
    pub fn unsupported_media_type(media_types: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            media_types.join(", ")
        );
        Self::new(Reason::UnsupportedMediaType, message)
    }

    /// 422 with a cause per field error.
    #[must_use]
    pub fn invalid(resource: Resource<'_>, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let why = match texts.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let details = Details {
            kind: resource.kind.to_owned(),
            causes: errors.iter().map(Cause::from).collect(),
            ..Details::of(resource, name)
        };
        let message = format!("{} \"{name}\" is invalid{why}", resource.qualified_kind());
        Self::about(Reason::Invalid, message, details)
    }

    /// 422 with a text only: a JSON patch whose `test` failed, query parameters that exclude each other.
    #[must_use]
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, message)
    }

    /// 429.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(Reason::TooManyRequests, message).with_retry_after(retry_after_seconds.max(1))
    }

    /// 429 of an eviction that a disruption budget does not allow now.
    #[must_use]
    pub fn disruption_budget(budget: &str, retry_after_seconds: u32) -> Self {
        let cause = format!("The disruption budget {budget} does not allow another disruption right now");
        Self::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            retry_after_seconds,
        )
        .with_cause("DisruptionBudget", cause, "")
    }

    /// 500: a defect.
    #[must_use]
    pub fn internal(why: &str) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {why}")).with_cause("", why, "")
    }

    /// 503: no leader within the deadline, and the write was certainly not applied.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message).with_retry_after(1)
    }

    /// 504.
    #[must_use]
    pub fn timeout(why: &str) -> Self {
        Self::new(Reason::Timeout, format!("Timeout: {why}"))
    }

    /// 504: the client has seen a later version than this replica has reached.
    #[must_use]
    pub fn version_ahead(wanted: u64, current: u64) -> Self {
        Self::timeout(&format!("Too large resource version: {wanted}, current: {current}"))
            .with_retry_after(1)
            .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Path;

    const PODS: Resource<'_> = Resource { group: "", plural: "pods", kind: "Pod" };
    const DEPLOYMENTS: Resource<'_> = Resource { group: "apps", plural: "deployments", kind: "Deployment" };

    /// Code, reason and wording of what clients match on.
    #[test]
    fn wording() {
        let denied = Status::denied(Attempt {
            user: "u",
            verb: "get",
            resource: PODS,
            subresource: "",
            namespace: Some("ns"),
            name: "x",
        });
        let denied_sub = Status::denied(Attempt {
            user: "u",
            verb: "update",
            resource: DEPLOYMENTS,
            subresource: "scale",
            namespace: None,
            name: "",
        });
        let table = [
            (Status::not_found(PODS, "x"), 404, "NotFound", "pods \"x\" not found"),
            (Status::not_found(DEPLOYMENTS, "x"), 404, "NotFound", "deployments.apps \"x\" not found"),
            (Status::already_exists(PODS, "x"), 409, "AlreadyExists", "pods \"x\" already exists"),
            (
                Status::modified(PODS, "x"),
                409,
                "Conflict",
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your \
                 changes to the latest version and try again",
            ),
            (
                Status::invalid(PODS, "x", &[FieldError::required(&Path::new("spec.containers[0].name"), "")]),
                422,
                "Invalid",
                "Pod \"x\" is invalid: spec.containers[0].name: Required value",
            ),
            (
                denied,
                403,
                "Forbidden",
                "pods \"x\" is forbidden: User \"u\" cannot get resource \"pods\" in API group \"\" in the \
                 namespace \"ns\"",
            ),
            (
                denied_sub,
                403,
                "Forbidden",
                "deployments.apps is forbidden: User \"u\" cannot update resource \"deployments/scale\" in API \
                 group \"apps\" at the cluster scope",
            ),
            (Status::denied_path("u", "get", "/x"), 403, "Forbidden", "forbidden: User \"u\" cannot get path \"/x\""),
            (Status::unauthorized(), 401, "Unauthorized", "Unauthorized"),
            (Status::too_old(3, 9), 410, "Expired", "too old resource version: 3 (9)"),
            (Status::version_ahead(9, 3), 504, "Timeout", "Timeout: Too large resource version: 9, current: 3"),
        ];
        for (status, code, reason, message) in table {
            let value = status.to_value();
            assert_eq!(status.code(), code, "{message}");
            assert_eq!(value.get("code"), Some(&json!(code)));
            assert_eq!(value.get("reason"), Some(&json!(reason)));
            assert_eq!(value.get("message"), Some(&json!(message)));
            assert_eq!(value.get("status"), Some(&json!("Failure")));
        }
    }

    /// The whole body of an invalid object and of a delete.
    #[test]
    fn bodies() {
        let path = Path::new("spec");
        let errors = [
            FieldError::required(&path.child("selector"), ""),
            FieldError::invalid(&path.child("replicas"), &json!(-1), "must be greater than or equal to 0"),
        ];
        assert_eq!(
            Status::invalid(DEPLOYMENTS, "web", &errors).to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid",
                "message": "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.replicas: \
                            Invalid value: -1: must be greater than or equal to 0]",
                "details": {"name": "web", "group": "apps", "kind": "Deployment", "causes": [
                    {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"},
                    {"reason": "FieldValueInvalid", "field": "spec.replicas",
                     "message": "Invalid value: -1: must be greater than or equal to 0"}]},
                "code": 422})
        );
        assert_eq!(
            Status::deleted(PODS, "Pod", "x", "u-1").to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {"name": "x", "kind": "Pod", "uid": "u-1"}})
        );
        let limited = Status::disruption_budget("b", 10);
        assert_eq!((limited.code(), limited.retry_after_seconds()), (429, Some(10)));
        let expired = Status::list_expired("tok".to_owned()).to_value();
        assert_eq!(expired.pointer("/metadata/continue"), Some(&json!("tok")));
    }
}
