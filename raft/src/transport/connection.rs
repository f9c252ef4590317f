//! One peer's three connections, each dialled once and kept: control, data, snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

use super::PeerError;
use super::control::{Client, Dial};
use super::wire::{self, Channel, Tls};
use crate::host::Handle;
use crate::peer::control_frame::Body;
use crate::peer::data_client::DataClient;
use crate::peer::snapshot_transfer_client::SnapshotTransferClient;
use crate::peer::{Hello, PingReply};
use crate::types::TypeConfig;

type Instant = openraft::alias::InstantOf<TypeConfig>;

/// A peer message: a raft entry and what surrounds it. tonic's own default is 4 MiB, on both sides.
pub(crate) const PEER_MESSAGE_BYTES_MAX: usize = 20 << 20;

const CLUSTER: &str = "quilt-cluster";
const EPOCH: &str = "quilt-epoch";
const FROM: &str = "quilt-from";
const TO: &str = "quilt-to";

/// Says on every request who sends it, to whom, and of which control plane both are.
#[derive(Clone)]
pub(crate) struct Introduce {
    cluster: MetadataValue<Ascii>,
    epoch: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl Introduce {
    pub(super) fn new(hello: &Hello) -> Result<Self, String> {
        let Hello { cluster, epoch, from, to } = hello;
        let cluster = cluster.parse().map_err(|_| format!("control plane id {cluster:?} is not plain ASCII"))?;
        Ok(Self { cluster, epoch: (*epoch).into(), from: (*from).into(), to: (*to).into() })
    }
}

impl Interceptor for Introduce {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(EPOCH, self.epoch.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        Ok(request)
    }
}

/// What a request says of its sender. What is not said is taken for what nobody is: no replica has the number 0, and no epoch is
/// the largest.
pub(super) fn introduction(metadata: &MetadataMap) -> Hello {
    let text = |key: &str| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let number = |key: &str, none: u64| text(key).parse().unwrap_or(none);
    Hello {
        cluster: text(CLUSTER).to_owned(),
        epoch: number(EPOCH, u64::MAX),
        from: number(FROM, 0),
        to: number(TO, 0),
    }
}

pub(crate) type Introduced = InterceptedService<Channel, Introduce>;

/// One peer, by its address.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) address: String,
    introduce: Introduce,
    control: Client,
    data: Channel,
    snapshots: Channel,
    /// When it was last heard from, on either side's connection.
    heard: Mutex<Option<Instant>>,
    /// What it last said of itself.
    report: Mutex<Option<PeerReport>>,
    /// What it has acknowledged to this replica as leader, and of which term.
    acknowledged: Mutex<(u64, u64)>,
    /// The last term in which it turned out not to hold that any more.
    lost_log_in: AtomicU64,
}

/// What a peer said of itself.
#[derive(Clone, Debug)]
pub(crate) struct PeerReport {
    /// Term of the last entry it has applied.
    pub(crate) term: u64,
    /// The last index it has applied.
    pub(crate) applied_index: u64,
    /// What the layers above it say.
    pub(crate) about: Bytes,
    /// What a sync of its log takes at this time, if there was one lately.
    pub(crate) sync: Option<Duration>,
    /// Whether it holds its own disk to be slow.
    pub(crate) disk_is_slow: bool,
    /// When it said so.
    pub(crate) at: Instant,
}

impl Connection {
    /// Prepares the connections, by the threads that call this: control is kept dialled, the others are dialled when first
    /// used, and again when they were lost. What snapshots need is done by the threads of `apart`.
    pub(crate) fn new(
        hello: Hello,
        address: String,
        tls: &Arc<Tls>,
        resets: &mpsc::UnboundedSender<u64>,
        apart: &Handle,
    ) -> Result<Self, String> {
        let id = hello.to;
        let introduce = Introduce::new(&hello)?;
        let data = wire::data(id, &address, Arc::clone(tls))?;
        let snapshots = wire::snapshots(id, &address, Arc::clone(tls), apart)?;
        let dial = Dial { address: address.clone(), hello, tls: Arc::clone(tls), resets: resets.clone() };
        let (heard, report, acknowledged) = (Mutex::default(), Mutex::default(), Mutex::default());
        let lost_log_in = AtomicU64::new(0);
        Ok(Self {
            id,
            introduce,
            control: Client::new(dial),
            data,
            snapshots,
            heard,
            report,
            acknowledged,
            lost_log_in,
            address,
        })
    }

    /// Asks over the control connection.
    pub(crate) async fn control(&self, question: Body, timeout: Duration) -> Result<Body, PeerError> {
        match TypeConfig::timeout(timeout, self.control.call(question)).await {
            Ok(Ok(answer)) => {
                self.note_heard();
                Ok(answer)
            }
            Ok(Err(error)) => Err(PeerError::Control { id: self.id, error }),
            Err(_) => Err(PeerError::Timeout(self.id)),
        }
    }

    pub(crate) fn data(&self) -> DataClient<Introduced> {
        DataClient::with_interceptor(self.data.clone(), self.introduce.clone())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn snapshots(&self) -> SnapshotTransferClient<Introduced> {
        SnapshotTransferClient::with_interceptor(self.snapshots.clone(), self.introduce.clone())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn note_heard(&self) {
        *self.heard.lock() = Some(TypeConfig::now());
    }

    pub(crate) fn note_report(&self, reply: &PingReply) {
        *self.report.lock() = Some(PeerReport {
            term: reply.term,
            applied_index: reply.applied_index,
            about: reply.about.clone(),
            sync: Some(Duration::from_micros(reply.log_sync_us)).filter(|sync| !sync.is_zero()),
            disk_is_slow: reply.disk_is_slow,
            at: TypeConfig::now(),
        });
    }

    /// The peer says that it holds the log up to `index`, to the leader of `term`.
    pub(crate) fn note_acknowledged(&self, term: u64, index: u64) {
        let mut known = self.acknowledged.lock();
        *known = (*known).max((term, index));
    }

    pub(crate) fn note_lost_log(&self, term: u64) {
        self.lost_log_in.store(term, Ordering::Relaxed);
    }

    /// Whether the peer has shown to the leader of `term` that it does not hold what it acknowledged.
    pub(crate) fn has_lost_log(&self, term: u64) -> bool {
        self.lost_log_in.load(Ordering::Relaxed) == term
    }

    /// Whether the peer has acknowledged `index` to the leader of `term` before.
    pub(crate) fn has_acknowledged(&self, term: u64, index: u64) -> bool {
        let (known_term, known) = *self.acknowledged.lock();
        known_term == term && index <= known
    }

    pub(crate) fn report(&self) -> Option<PeerReport> {
        self.report.lock().clone()
    }

    pub(crate) fn heard(&self) -> Option<Instant> {
        *self.heard.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request says of its sender what the connection was made with; one that says nothing is from nobody.
    #[test]
    fn a_request_introduces_its_sender() {
        let hello = Hello { cluster: "here".into(), epoch: 5, from: 2, to: 1 };
        let mut introduce = Introduce::new(&hello).expect("plain ASCII");
        let request = introduce.call(Request::new(())).expect("introduced");
        assert_eq!(introduction(request.metadata()), hello);
        let nobody = Hello { cluster: String::new(), epoch: u64::MAX, from: 0, to: 0 };
        assert_eq!(introduction(&MetadataMap::new()), nobody);
    }
}
