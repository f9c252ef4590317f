//! [`Reply`]: a successful answer of a Quilt route, before it becomes HTTP. Must not know routes.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

/// A 2xx answer, or 304.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    status: StatusCode,
    body: Option<Value>,
    etag: Option<String>,
    origin: Origin,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Fresh,
    /// It was given before, to the same request.
    Replayed,
}

/// Says that an answer was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

impl Reply {
    /// 200 with a body.
    pub(crate) const fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body: Some(body), etag: None, origin: Origin::Fresh }
    }

    /// 201 with a body.
    pub(crate) const fn created(body: Value) -> Self {
        Self { status: StatusCode::CREATED, body: Some(body), etag: None, origin: Origin::Fresh }
    }

    /// What DELETE and actions answer.
    pub(crate) fn success() -> Self {
        Self::ok(json!({"success": true}))
    }

    /// The client has it already.
    pub(crate) const fn not_modified(etag: String) -> Self {
        Self { status: StatusCode::NOT_MODIFIED, body: None, etag: Some(etag), origin: Origin::Fresh }
    }

    /// An answer that was given before.
    pub(crate) fn again(status: u16, body: Value) -> Option<Self> {
        let status = StatusCode::from_u16(status).ok()?;
        Some(Self { status, body: Some(body), etag: None, origin: Origin::Replayed })
    }

    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Its body, null where there is none.
    pub(crate) fn body(&self) -> &Value {
        self.body.as_ref().unwrap_or(&Value::Null)
    }

    /// Adds the entity tag.
    pub(crate) fn tagged(mut self, etag: String) -> Self {
        self.etag = Some(etag);
        self
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        let body = self.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status != StatusCode::NOT_MODIFIED {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if self.origin == Origin::Replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if let Some(Ok(etag)) = self.etag.map(|etag| HeaderValue::from_str(&etag)) {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}

/// The entity tag of a document.
pub(crate) fn etag(document: &Value) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, document.to_string().as_bytes());
    format!("\"{}\"", hex::encode(&digest.as_ref()[..16]))
}

/// Whether `If-None-Match` names `etag`.
pub(crate) fn is_known(headers: &http::HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}
