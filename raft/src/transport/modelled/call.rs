//! gRPC calls over the modelled network: what tonic's channel and server are over HTTP/2. Messages, frames and trailers
//! are tonic's; this only carries them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{AbortHandle, BoxFuture, Either, abortable, poll_fn, select};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use openraft::type_config::TypeConfigExt;
use tonic::Status;

use super::conn::{self, End, Item, Reader, Writer};
use super::{PeerId, Tls};
use crate::types::TypeConfig;

/// Dialling.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a server answers.
pub(super) type Answer = http::Response<tonic::body::Body>;

/// Makes calls to one address.
#[derive(Clone)]
pub(crate) struct Channel {
    address: String,
    tls: Arc<Tls>,
}

impl Channel {
    pub(super) const fn new(address: String, tls: Arc<Tls>) -> Self {
        Self { address, tls }
    }
}

/// Ends the tasks that carry a call when nobody waits for it any more.
#[derive(Default)]
struct Carriers(Vec<AbortHandle>);

impl Drop for Carriers {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Arriving>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let reached = TypeConfig::timeout(CONNECT_TIMEOUT, tls.net.reach(&tls.host, &address)).await;
            let there = reached.map_err(|_| Status::unavailable("dialling took too long"))?;
            let there = there.map_err(|error| Status::unavailable(error.to_string()))?;
            let (ours, theirs) = conn::connect(&tls.net, &tls.host, &there.host);
            let (parts, body) = request.into_parts();
            let (End { reader: mut answers, writer }, End { reader: arriving, writer: answering }) = (ours, theirs);

            let (sending, stop_sending) = abortable(carry(body, writer));
            drop(tls.host.spawn(sending));
            let arriving = tonic::body::Body::new(Arriving { reader: Some(arriving), _carriers: Carriers::default() });
            let mut remote = http::Request::from_parts(parts, arriving);
            remote.extensions_mut().insert(PeerId(tls.host.id()));
            let travel = tls.net.fare().0;
            let accepts = Arc::clone(&there.accepts);
            let (serving, stop_serving) = abortable(async move {
                crate::host::modelled::sleep(travel).await;
                let (parts, body) = accepts.call(remote).await.into_parts();
                if answering.send(Item::Head(Box::new(parts))).is_ok() {
                    carry(body, answering).await;
                }
            });
            drop(there.host.spawn(serving));
            let carriers = Carriers(vec![stop_sending, stop_serving]);
            let head = poll_fn(|cx| answers.poll_next(cx)).await;
            match head {
                Ok(Item::Head(parts)) => {
                    Ok(http::Response::from_parts(*parts, Arriving { reader: Some(answers), _carriers: carriers }))
                }
                Ok(_) => Err(Status::unavailable("the call was ended")),
                Err(broken) => Err(Status::unavailable(broken.to_string())),
            }
        })
    }
}

/// Sends a body, frame by frame, while somebody reads.
async fn carry(mut body: tonic::body::Body, writer: Writer) {
    loop {
        let next = match select(body.frame(), poll_fn(|cx| writer.poll_closed(cx))).await {
            Either::Left((next, _)) => next,
            Either::Right(((), _)) => return,
        };
        let item = match next {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Item::Data(data),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => Item::Trailers(Box::new(trailers)),
                    Err(_) => continue,
                },
            },
            // The end follows when the writer is dropped.
            Some(Err(_)) | None => return,
        };
        if writer.send(item).is_err() {
            return;
        }
    }
}

/// A body on its way in; an empty one when there is nothing to read.
#[derive(Default)]
pub(crate) struct Arriving {
    reader: Option<Reader>,
    _carriers: Carriers,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        reader.poll_next(cx).map(|item| match item {
            Ok(Item::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Item::Trailers(trailers)) => Some(Ok(Frame::trailers(*trailers))),
            Ok(Item::End) => None,
            Ok(Item::Head(_)) => Some(Err(Status::internal("an answer began twice"))),
            Err(broken) => Some(Err(Status::unavailable(broken.to_string()))),
        })
    }
}
