//! Access reviews: what the authorizer would say, asked as an object that is never stored.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use quilt_objects::place;
use serde_json::{Value, json};

use crate::access::Admitted;
use crate::authz::{self, Attributes};
use crate::body;
use crate::identity::{Identity, IdentityKind};
use crate::negotiate::Encoding;
use crate::problem::Problem;
use crate::query::ReadAt;
use crate::render::respond_value;
use crate::request::Call;

/// Fills in the status of one kind of review.
type Judge = fn(&Admitted, &Value) -> Value;

const REVIEWS: [(&str, &str, Judge); 5] = [
    ("authorization.k8s.io", "selfsubjectaccessreviews", own_access),
    ("authorization.k8s.io", "subjectaccessreviews", access_of),
    ("authorization.k8s.io", "localsubjectaccessreviews", access_of),
    ("authorization.k8s.io", "selfsubjectrulesreviews", own_rules),
    ("authentication.k8s.io", "selfsubjectreviews", own_name),
];

/// Whether the call's kind is answered here.
pub(crate) fn is_review(call: &Call) -> bool {
    judge(call).is_some()
}

fn judge(call: &Call) -> Option<Judge> {
    let found = REVIEWS.iter().find(|(group, plural, _)| *group == call.kind.group && *plural == call.kind.plural);
    found.map(|(_, _, judge)| *judge)
}

/// POST.
pub(crate) async fn create(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let judge = judge(call).ok_or_else(Problem::no_such_path)?;
    let mut review = body::decode(call, &bytes, call.kind.target())?.object;
    let view = call.view(ReadAt::Latest).await?;
    let admitted = call.admit(&view)?;
    let status = judge(&admitted, &review);
    place::set(&mut review, &["status"], status);
    if place::get(&review, &["metadata"]).is_none() {
        place::set(&mut review, &["metadata"], json!({}));
    }
    respond_value(StatusCode::CREATED, Encoding::Json, &review)
}

fn own_access(admitted: &Admitted, review: &Value) -> Value {
    verdict(&admitted.identity, admitted, review)
}

fn access_of(admitted: &Admitted, review: &Value) -> Value {
    let groups = place::items(review, &["spec", "groups"]).iter().filter_map(Value::as_str).map(str::to_owned);
    let user = place::text_or_empty(review, &["spec", "user"]).to_owned();
    let tenant = user.strip_prefix("quilt:tenant:").map(str::to_owned);
    let kind = if tenant.is_some() { IdentityKind::Tenant } else { IdentityKind::Certificate };
    let identity = Identity { user, groups: groups.collect(), tenant, kind, guards: Vec::new() };
    verdict(&identity, admitted, review)
}

fn verdict(identity: &Identity, admitted: &Admitted, review: &Value) -> Value {
    let text = |path: &[&str]| place::text_or_empty(review, path).to_owned();
    let path = text(&["spec", "nonResourceAttributes", "path"]);
    let attributes = if path.is_empty() {
        let of = |field: &str| text(&["spec", "resourceAttributes", field]);
        Attributes {
            verb: of("verb"),
            group: of("group"),
            resource: of("resource"),
            subresource: of("subresource"),
            namespace: of("namespace"),
            name: of("name"),
            path: String::new(),
        }
    } else {
        Attributes { verb: text(&["spec", "nonResourceAttributes", "verb"]), path, ..Attributes::default() }
    };
    if authz::allows(identity, &admitted.cluster.tenant_id, &attributes) {
        json!({"allowed": true})
    } else {
        json!({"allowed": false, "reason": "no rule allows it"})
    }
}

fn own_rules(admitted: &Admitted, _review: &Value) -> Value {
    let probe = Attributes { verb: "*".into(), group: "*".into(), resource: "*".into(), ..Attributes::default() };
    let (resources, paths) = if authz::allows(&admitted.identity, &admitted.cluster.tenant_id, &probe) {
        (
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]),
            json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        )
    } else {
        (
            json!([]),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/openapi/*", "/version"]}]),
        )
    };
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn own_name(admitted: &Admitted, _review: &Value) -> Value {
    json!({"userInfo": {"username": admitted.identity.user, "groups": admitted.identity.groups}})
}
