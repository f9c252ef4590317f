//! `GET /api/admin/snapshot`: a backup, streamed as it lies on disk.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use quilt_raft::Consistency;
use quilt_storage::Snapshot;

use super::refusal::Refusal;
use super::{LINEARIZABLE_READ, Operator};

/// Pieces of a backup that wait for a slow reader.
const PIECES_WAITING: usize = 4;

/// A backup of everything acknowledged before the request began.
pub(super) async fn snapshot(State(operator): State<Operator>, headers: HeaderMap) -> Result<Response, Refusal> {
    operator.admin(&headers, Consistency::Linearizable, LINEARIZABLE_READ).await?;
    operator.api.replica.admin().snapshot().await.map_err(|error| Refusal::unavailable(&error))?;
    let newest = operator.snapshots.newest().ok_or_else(|| Refusal::unavailable(&"nothing has been applied yet"))?;
    Ok(backup(newest))
}

fn backup(snapshot: Arc<Snapshot>) -> Response {
    let revision = snapshot.manifest().revision;
    let (length, pieces) = quilt_storage::backup(snapshot);
    let (sender, receiver) = tokio::sync::mpsc::channel(PIECES_WAITING);
    tokio::task::spawn_blocking(move || {
        for piece in pieces {
            // Nobody reads any more.
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    let mut response = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    fields.insert("x-quilt-revision", HeaderValue::from(revision));
    response
}
