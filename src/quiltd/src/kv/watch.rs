//! Watches of the service: the replica's event stream, narrowed to a prefix of names and translated.

use std::pin::Pin;

use futures::Stream;
use quilt_proto::{EventKind, KeyPrefix, Revision};
use quilt_raft::{Batch, EventStream, Replica, WatchError};
use tonic::Status;

use super::place;
use super::service::item;
use super::wire::watch_request::What;
use super::wire::{Event, KeyValue, WatchReply, event};

pub(super) type Replies = Pin<Box<dyn Stream<Item = Result<WatchReply, Status>> + Send>>;

struct Watch {
    events: EventStream,
    /// Names of interest begin so; the event stream itself knows only whole parts of keys.
    prefix: Option<String>,
    state: State,
}

enum State {
    /// Nothing has been sent yet.
    Opening,
    Open,
    Over,
}

/// Begins a watch behind `from`.
pub(super) fn open(replica: &Replica, what: Option<What>, from: Revision) -> Result<Replies, Status> {
    let (range, prefix) = match what {
        Some(What::Key(key)) => (KeyPrefix::exact(&place::key(&key)?), None),
        Some(What::Prefix(prefix)) => (place::all(), Some(prefix).filter(|prefix| !prefix.is_empty())),
        None => return Err(Status::invalid_argument("neither key nor prefix is given")),
    };
    let watch = Watch { events: replica.watch(range, from), prefix, state: State::Opening };
    Ok(Box::pin(futures::stream::unfold(watch, |mut watch| async move {
        let reply = watch.next().await?;
        Some((reply, watch))
    })))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchReply, Status>> {
        match self.state {
            State::Over => return None,
            State::Opening => {
                self.state = State::Open;
                return Some(Ok(WatchReply { events: Vec::new(), revision: self.events.position().get() }));
            }
            State::Open => {}
        }
        loop {
            match self.events.next().await {
                Ok(batch) => {
                    let reply = self.reply(&batch);
                    if !reply.events.is_empty() {
                        return Some(Ok(reply));
                    }
                }
                Err(error) => {
                    self.state = State::Over;
                    return Some(Err(ended(&error)));
                }
            }
        }
    }

    fn reply(&self, batch: &Batch) -> WatchReply {
        let wanted = batch.events.iter().filter(|event| {
            self.prefix.as_ref().is_none_or(|prefix| place::name(&event.key).starts_with(prefix.as_str()))
        });
        WatchReply { events: wanted.map(|event| translate(event)).collect(), revision: batch.upto.get() }
    }
}

fn translate(event: &quilt_proto::Event) -> Event {
    let (kind, item) = match (&event.kind, &event.record) {
        (EventKind::Create | EventKind::Update, Some(record)) => (event::Kind::Put, item(&event.key, record)),
        _ => {
            let key = place::name(&event.key).to_owned();
            (event::Kind::Delete, KeyValue { key, mod_revision: event.revision.get(), ..KeyValue::default() })
        }
    };
    Event { kind: kind.into(), item: Some(item) }
}

fn ended(error: &WatchError) -> Status {
    match error {
        WatchError::Compacted { .. } => Status::out_of_range(error.to_string()),
        WatchError::Storage(_) => Status::internal(error.to_string()),
        WatchError::Dropped | WatchError::Stopped => Status::unavailable(error.to_string()),
    }
}
