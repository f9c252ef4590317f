//! [`Body`]: a request's JSON, or a refusal that names the field.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// Requests of operators are small; the largest holds two certificate requests.
const BYTES_MAX: usize = 64 << 10;

/// The body as `T`. Fields that `T` does not have are refused.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| Refusal::invalid(error.body_text(), "send the whole body"))?;
        if bytes.len() > BYTES_MAX {
            let error = format!("the body has {} bytes; at most {BYTES_MAX} are taken", bytes.len());
            return Err(Refusal::invalid(error, "send less"));
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| {
            Refusal::invalid(format!("the body is not what is expected here: {error}"), "correct the field it names")
        })
    }
}
