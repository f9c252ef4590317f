//! [`PeerStream`]: a TLS connection between replicas that knows who is at the other end and says when that end is gone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

/// The replica at the other end of a connection, as its certificate proves.
#[derive(Clone, Copy, Debug)]
pub(in crate::transport) struct PeerId(pub(in crate::transport) u64);

/// A connection whose other end has proven which replica it is.
pub(in crate::transport) struct PeerStream {
    stream: TlsStream<TcpStream>,
    peer: PeerId,
    /// Told once when the other side ends or resets the connection: the process there is gone, not slow.
    resets: Option<mpsc::UnboundedSender<u64>>,
}

impl PeerStream {
    pub(in crate::transport) fn new(
        stream: impl Into<TlsStream<TcpStream>>,
        peer: u64,
        resets: Option<mpsc::UnboundedSender<u64>>,
    ) -> Self {
        Self { stream: stream.into(), peer: PeerId(peer), resets }
    }

    /// The replica at the other end.
    pub(in crate::transport) const fn peer(&self) -> u64 {
        self.peer.0
    }

    fn ended(&mut self) {
        if let Some(resets) = self.resets.take() {
            // Nobody listens any more when this replica stops.
            let _ = resets.send(self.peer.0);
        }
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut TlsStream<TcpStream>> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerId;

    fn connect_info(&self) -> PeerId {
        self.peer
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = self.as_mut().inner().poll_read(cx, buf);
        match &result {
            Poll::Ready(Ok(())) if buf.filled().len() == before && buf.remaining() > 0 => self.ended(),
            Poll::Ready(Err(_)) => self.ended(),
            _ => {}
        }
        result
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
