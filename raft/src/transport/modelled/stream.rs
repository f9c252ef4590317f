//! [`PeerStream`]: a control connection that knows who is at the other end and says when that end is gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::conn::{End, Item};

/// A connection between two replicas.
pub(crate) struct PeerStream {
    end: End,
    peer: u64,
    /// Told once when the other side ends or resets the connection.
    resets: Option<mpsc::UnboundedSender<u64>>,
    /// What has arrived and was not taken yet.
    held: Bytes,
}

impl PeerStream {
    pub(super) fn new(end: End, peer: u64, resets: Option<mpsc::UnboundedSender<u64>>) -> Self {
        Self { end, peer, resets, held: Bytes::new() }
    }

    /// The replica at the other end.
    pub(in crate::transport) const fn peer(&self) -> u64 {
        self.peer
    }

    fn ended(&mut self) {
        if let Some(resets) = self.resets.take() {
            // Nobody listens any more when this replica stops.
            let _ = resets.send(self.peer);
        }
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.held.is_empty() {
            match this.end.reader.poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Item::Data(bytes))) => this.held = bytes,
                Poll::Ready(Ok(Item::End)) => {
                    this.ended();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(Item::Head(_) | Item::Trailers(_))) => {}
                Poll::Ready(Err(broken)) => {
                    this.ended();
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, broken)));
                }
            }
        }
        let taken = this.held.len().min(buf.remaining());
        buf.put_slice(&this.held[..taken]);
        this.held.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.end.writer.send(Item::Data(Bytes::copy_from_slice(buf)));
        Poll::Ready(sent.map(|()| buf.len()).map_err(|broken| io::Error::new(io::ErrorKind::ConnectionReset, broken)))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The other side may have ended it before.
        let _ = self.end.writer.send(Item::End);
        Poll::Ready(Ok(()))
    }
}
