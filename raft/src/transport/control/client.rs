//! The dialling side of a control connection: dialled at once and again whenever it was lost, shared by all who ask.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures::future::{AbortHandle, Either, abortable, select};
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::SILENCE_MAX;
use super::frame::{self, Reader};
use crate::host::watch;
use crate::peer::control_frame::Body;
use crate::peer::{ControlFrame, Hello};
use crate::transport::wire::{self, PeerStream, Tls};
use crate::types::TypeConfig;

/// Dialling, TLS and introduction included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pauses between attempts: short at first, since a peer that restarts is back within a second.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Questions on their way to the connection.
const OUTGOING_MAX: usize = 256;
/// Questions that wait for an answer.
const PENDING_MAX: usize = 4_096;

/// Why a question has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no connection, or it was lost.
    #[error("not connected")]
    NotConnected,
    /// [`PENDING_MAX`] or [`OUTGOING_MAX`] is reached.
    #[error("too many questions wait for an answer: limit {0} is reached")]
    Overloaded(&'static str),
    /// The peer says why it does not answer.
    #[error("{0}")]
    Failed(String),
}

/// What it takes to dial.
pub(crate) struct Dial {
    pub(crate) address: String,
    pub(crate) hello: Hello,
    pub(crate) tls: Arc<Tls>,
    /// Told when the peer ends or resets a connection that stood.
    pub(crate) resets: mpsc::UnboundedSender<u64>,
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Body>>>>;

/// A connection that stands.
#[derive(Clone)]
struct Session {
    outgoing: mpsc::Sender<ControlFrame>,
    pending: Pending,
}

/// One peer's control connection.
pub(crate) struct Client {
    session: watch::Receiver<Option<Session>>,
    next: AtomicU64,
    keeping: AbortHandle,
}

/// Forgets a question nobody waits for any more.
struct Asked<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.id);
    }
}

impl Client {
    /// Keeps a connection dialled until the client is dropped. Must be called on the control runtime.
    pub(crate) fn new(dial: Dial) -> Self {
        let (sender, session) = watch::channel(None);
        let (dialled, keeping) = abortable(keep(dial, sender));
        TypeConfig::spawn(dialled);
        Self { session, next: AtomicU64::new(1), keeping }
    }

    /// Asks, and waits for the answer; also for the connection, if there is none. Dropping the future withdraws.
    pub(crate) async fn call(&self, body: Body) -> Result<Body, CallError> {
        let mut sessions = self.session.clone();
        let session = sessions.wait_for(Option::is_some).await.map_err(|_| CallError::NotConnected)?.clone();
        let session = session.ok_or(CallError::NotConnected)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut pending = session.pending.lock();
            if pending.len() >= PENDING_MAX {
                return Err(CallError::Overloaded("PENDING_MAX"));
            }
            pending.insert(id, answer);
        }
        let _asked = Asked { pending: &session.pending, id };
        session.outgoing.try_send(ControlFrame { id, body: Some(body) }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => CallError::Overloaded("OUTGOING_MAX"),
            mpsc::error::TrySendError::Closed(_) => CallError::NotConnected,
        })?;
        match answered.await {
            Ok(Body::Failed(text)) => Err(CallError::Failed(text)),
            Ok(body) => Ok(body),
            Err(_) => Err(CallError::NotConnected),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

async fn keep(dial: Dial, session: watch::Sender<Option<Session>>) {
    let mut pause = RETRY_MIN;
    loop {
        match TypeConfig::timeout(CONNECT_TIMEOUT, connect(&dial)).await {
            Ok(Ok(stream)) => {
                pause = RETRY_MIN;
                tracing::info!(peer = dial.hello.to, "a control connection stands");
                let why = converse(stream, &session).await;
                session.send_replace(None);
                tracing::info!(peer = dial.hello.to, %why, "a control connection has ended");
            }
            Ok(Err(error)) => tracing::debug!(peer = dial.hello.to, %error, "dialling a control connection"),
            Err(_) => tracing::debug!(peer = dial.hello.to, "dialling a control connection took too long"),
        }
        TypeConfig::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

async fn connect(dial: &Dial) -> io::Result<PeerStream> {
    let stream = wire::control(&dial.tls, &dial.address, dial.hello.to, dial.resets.clone()).await?;
    introduce(stream, &dial.hello).await
}

/// Says who has dialled, and gives the connection back when that is welcome.
pub(crate) async fn introduce(mut stream: PeerStream, hello: &Hello) -> io::Result<PeerStream> {
    let mut said = BytesMut::new();
    frame::put(&mut said, &ControlFrame { id: 0, body: Some(Body::Hello(hello.clone())) });
    stream.write_all(&said).await?;
    stream.flush().await?;
    // Nothing is asked before the welcome, so nothing can follow it that this reader would take along.
    match Reader::new(&mut stream).next().await?.body {
        Some(Body::Welcome(welcome)) if welcome.refused.is_empty() => Ok(stream),
        Some(Body::Welcome(welcome)) => Err(io::Error::new(io::ErrorKind::PermissionDenied, welcome.refused)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not introduce itself")),
    }
}

/// Carries questions and answers until the connection ends; says why it did.
async fn converse(stream: PeerStream, session: &watch::Sender<Option<Session>>) -> io::Error {
    let (reading, writing) = tokio::io::split(stream);
    let (outgoing, questions) = mpsc::channel(OUTGOING_MAX);
    let pending = Pending::default();
    session.send_replace(Some(Session { outgoing, pending: Arc::clone(&pending) }));
    let reading = async {
        let mut reader = Reader::new(reading);
        loop {
            let frame = match TypeConfig::timeout(SILENCE_MAX, reader.next()).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return error,
                Err(_) => return io::Error::new(io::ErrorKind::TimedOut, "the peer has fallen silent"),
            };
            if let Some(body) = frame.body
                && let Some(asked) = pending.lock().remove(&frame.id)
            {
                // Who asked may have stopped waiting.
                let _ = asked.send(body);
            }
        }
    };
    let (reading, writing) = (std::pin::pin!(reading), std::pin::pin!(write(writing, questions)));
    let why = match select(reading, writing).await {
        Either::Left((why, _)) | Either::Right((why, _)) => why,
    };
    // Dropping what waits tells those who asked.
    pending.lock().clear();
    why
}

async fn write(mut stream: impl AsyncWrite + Unpin, mut questions: mpsc::Receiver<ControlFrame>) -> io::Error {
    let mut buffer = BytesMut::new();
    while let Some(question) = questions.recv().await {
        frame::put(&mut buffer, &question);
        while let Ok(question) = questions.try_recv() {
            frame::put(&mut buffer, &question);
        }
        let written = async {
            stream.write_all(&buffer).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            return error;
        }
        buffer.clear();
    }
    io::ErrorKind::ConnectionAborted.into()
}
