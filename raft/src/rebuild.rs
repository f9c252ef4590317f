//! A replica whose state and log do not fit each other when it starts: one that has lost its state takes that of a peer,
//! and one whose state is ahead of its log covers it by a snapshot, before it goes to work.
//!
//! Everything others rely on is in the log and the vote, so it comes back under its own number. What a peer has applied
//! is committed; a state ahead of the own log is one that a crash could have left as well. Nobody has to lead for this:
//! two replicas of three, one of them without a state, are a quorum again once it has one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::type_config::TypeConfigExt;
use quilt_state::{Machine, Position, Store};
use quilt_storage::LogEngine;
use tokio::sync::oneshot;

use crate::error::OpenError;
use crate::host::exhibit;
use crate::snapshot::{SnapshotFailed, SnapshotHome, blocking};
use crate::transport::{Peers, fetch};
use crate::types::TypeConfig;

/// Between two rounds through all peers.
const PAUSE: Duration = Duration::from_secs(1);

/// Rounds after which a replica that finds nobody says so again.
const SAY_EVERY: u32 = 30;

/// The members as they are noted beside the state: a line each.
pub(crate) fn encode_members<'a>(members: impl Iterator<Item = (u64, &'a str)>) -> Bytes {
    let mut text = String::new();
    for (id, address) in members {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{id} {address}");
    }
    text.into()
}

fn decode_members(text: &[u8]) -> BTreeMap<u64, String> {
    let text = String::from_utf8_lossy(text);
    let line = |line: &str| {
        let (id, address) = line.split_once(' ')?;
        Some((id.parse().ok()?, address.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Makes sure that there is a state. Asks the peers that were last noted, or those given, until one gives its own.
pub(crate) async fn ensure_state(
    id: u64,
    given: &BTreeMap<u64, String>,
    peers: &Peers,
    log: &Arc<dyn LogEngine>,
    snapshots: &Arc<dyn SnapshotHome>,
) -> Result<(), OpenError> {
    let Some(reason) = snapshots.missing() else { return Ok(()) };
    let noted = snapshots.members().map(|noted| decode_members(&noted)).filter(|noted| !noted.is_empty());
    let mut asked = noted.unwrap_or_else(|| given.clone());
    asked.remove(&id);
    if asked.is_empty() {
        return Err(OpenError::NoState { reason });
    }
    tracing::warn!(reason, peers = asked.len(), "the state is lost; taking that of a peer");
    for round in 0_u32.. {
        for (peer, address) in &asked {
            match take(*peer, address, peers, log, snapshots).await {
                Ok(position) => {
                    tracing::warn!(peer, index = position.index, "the state was made anew from that of a peer");
                    return Ok(());
                }
                Err(error) if round % SAY_EVERY == 0 => tracing::warn!(peer, %error, "no state from this peer"),
                Err(error) => tracing::debug!(peer, %error, "no state from this peer"),
            }
        }
        TypeConfig::sleep(PAUSE).await;
    }
    Ok(())
}

async fn take(
    peer: u64,
    address: &str,
    peers: &Peers,
    log: &Arc<dyn LogEngine>,
    snapshots: &Arc<dyn SnapshotHome>,
) -> Result<Position, SnapshotFailed> {
    let connection = peers.connect(peer, address).ok_or_else(|| SnapshotFailed("it cannot be dialled".into()))?;
    let needed = log.bounds().purged.map_or(0, |purged| purged.index);
    let mut sink = fetch(&connection, needed, Arc::clone(snapshots)).await?;
    let position = sink.position();
    if position.index < needed {
        let reason = format!("its state ends at entry {}, and the log here begins behind {needed}", position.index);
        return Err(SnapshotFailed(reason));
    }
    sink = blocking(move || {
        sink.verify()?;
        Ok(sink)
    })
    .await?;
    fit_log(log, position).await?;
    blocking(move || sink.install()).await?;
    Ok(position)
}

/// Cuts off what contradicts the state: at `position` stands what was agreed on, so whatever else is there never was.
async fn fit_log(log: &Arc<dyn LogEngine>, position: Position) -> Result<(), SnapshotFailed> {
    let bounds = log.bounds();
    let held = bounds.last.is_some_and(|last| position.index <= last.index)
        && bounds.purged.is_none_or(|purged| position.index > purged.index);
    if !held {
        return Ok(());
    }
    let failed = |error: quilt_storage::LogError| SnapshotFailed(error.to_string());
    let records = log.read(position.index..position.index + 1).map_err(failed)?;
    if records.first().is_some_and(|record| record.term == position.term) {
        return Ok(());
    }
    tracing::warn!(index = position.index, "the log ends in entries that were never agreed on: cutting them off");
    let (done, durable) = oneshot::channel();
    // The receiver is right here.
    log.truncate_after(position.index.checked_sub(1), Box::new(move |result| drop(done.send(result))));
    durable.await.map_err(|_| SnapshotFailed("the log has ended".into()))?.map_err(failed)
}

/// Makes a snapshot of a state that is ahead of its log, as it may be after the power went: openraft lets go of the whole
/// log then, and counts on a snapshot for what is gone. Without one this replica could bring up no other.
pub(crate) async fn cover(
    machine: &Machine<dyn Store>,
    log: &dyn LogEngine,
    snapshots: &Arc<dyn SnapshotHome>,
) -> Result<(), SnapshotFailed> {
    let Some(applied) = machine.position() else { return Ok(()) };
    let ends = log.bounds().last.map_or(0, |last| last.index);
    let covered = snapshots.newest().map_or(0, |newest| newest.position().index);
    if ends >= applied.index || covered >= applied.index || exhibit!(AheadOfLogUncovered) {
        return Ok(());
    }
    tracing::info!(applied = applied.index, ends, covered, "the state is ahead of the log");
    let snapshots = Arc::clone(snapshots);
    blocking(move || snapshots.build().map(drop)).await
}

#[cfg(test)]
mod tests {
    use quilt_storage::{LogRecord, MemoryLog};

    use super::*;

    /// What was noted of the members is read back; a line that is none is passed over.
    #[test]
    fn members_are_read_back() {
        let noted = encode_members([(1, "10.0.0.1:7443"), (2, "host:1")].into_iter());
        let expected = BTreeMap::from([(1, "10.0.0.1:7443".to_owned()), (2, "host:1".to_owned())]);
        assert_eq!(decode_members(&noted), expected);
        assert_eq!(decode_members(b"x y\n\n3\n"), BTreeMap::new());
    }

    /// The log is cut only where it contradicts the state that was taken.
    #[tokio::test]
    async fn only_a_contradiction_is_cut_off() {
        let log: Arc<dyn LogEngine> = Arc::new(MemoryLog::new());
        let records = (1..=9).map(|index| LogRecord { index, term: 1 + index / 5, leader: 1, payload: Bytes::new() });
        log.append(records.collect(), Box::new(|_| ()));
        let at = |index, term| Position { index, term, leader: 0 };
        for position in [at(4, 1), at(9, 2), at(12, 3)] {
            fit_log(&log, position).await.expect("fits");
            assert_eq!(log.bounds().last.expect("held").index, 9, "{position:?}");
        }
        fit_log(&log, at(7, 3)).await.expect("cut");
        assert_eq!(log.bounds().last.expect("held").index, 6);
    }
}
