//! A replica whose state and log do not fit each other when it starts: one that has lost its state takes that of a peer, one
//! that has lost entries of its log makes them good by a state that covers them, and one whose state is ahead of its log
//! covers it by a snapshot, before it goes to work.
//!
//! What others rely on is the vote and what was acknowledged. With both whole, a replica comes back under its own number:
//! what a peer has applied is committed, and a state ahead of the own log is one that a crash could have left as well. Nobody
//! has to lead for this: two replicas of three, one of them without a state, are a quorum again once it has one.
//!
//! When nobody knows what was acknowledged, a leader has to say up to where its log reaches, after a quorum of the others has
//! confirmed it. Until this replica has a state from there it runs no agreement at all
//! ([decision 27](../../docs/decisions)).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::type_config::TypeConfigExt;
use quilt_state::{Machine, Position, Store, persisted_position};
use quilt_storage::{LogEngine, Loss};
use tokio::sync::oneshot;

use crate::error::OpenError;
use crate::host::exhibit;
use crate::peer::control_frame::Body;
use crate::peer::{RejoinReply, RejoinRequest, rejoin_reply};
use crate::snapshot::{SnapshotFailed, SnapshotHome, blocking};
use crate::transport::{Peers, fetch};
use crate::types::TypeConfig;

/// Between two rounds through all peers.
const PAUSE: Duration = Duration::from_secs(1);

/// A leader's confirmation by its quorum, there and back.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Rounds after which a replica that finds nobody says so again.
const SAY_EVERY: u32 = 30;

/// What a replica had lost when it was opened, and has again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Repaired {
    /// Its state.
    State,
    /// Entries of its log.
    Log,
}

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

/// Makes sure that there is a state, and that it covers what the log has lost. Asks the peers that were last noted, or those
/// given, until one gives its own.
pub(crate) async fn make_whole(
    id: u64,
    given: &BTreeMap<u64, String>,
    peers: &Peers,
    log: &Arc<dyn LogEngine>,
    snapshots: &Arc<dyn SnapshotHome>,
    store: &Arc<dyn Store>,
) -> Result<Vec<Repaired>, OpenError> {
    let (missing, loss) = (snapshots.missing(), log.loss());
    let repaired = [missing.as_ref().map(|_| Repaired::State), loss.map(|_| Repaired::Log)];
    let repaired: Vec<Repaired> = repaired.into_iter().flatten().collect();
    let storage = |error: &dyn std::fmt::Display| OpenError::Storage(error.to_string());
    if missing.is_none() {
        match loss {
            None => return Ok(repaired),
            Some(Loss::Unknown) => {}
            Some(Loss::Upto(index)) => {
                let position = persisted_position(&**store).map_err(|error| storage(&error))?;
                if let Some(position) = position.filter(|position| position.index >= index) {
                    go_on_at(log, position).await.map_err(|error| storage(&error))?;
                    tracing::warn!(
                        lost = index,
                        index = position.index,
                        "what the log has lost is in the state; it goes on from there"
                    );
                    return Ok(repaired);
                }
            }
        }
    }
    let reason = missing.unwrap_or_else(|| match loss {
        Some(Loss::Upto(index)) => format!("its log has lost entries up to {index}"),
        Some(Loss::Unknown) | None => "its log has lost nobody knows what".to_owned(),
    });
    let noted = snapshots.members().map(|noted| decode_members(&noted)).filter(|noted| !noted.is_empty());
    let mut asked = noted.unwrap_or_else(|| given.clone());
    asked.remove(&id);
    if asked.is_empty() {
        return Err(OpenError::NoState { reason });
    }
    tracing::warn!(reason, peers = asked.len(), "the state of a peer is needed");
    let purged = log.bounds().purged.map_or(0, |purged| purged.index);
    let mut needed = match loss {
        None => Some(purged),
        Some(Loss::Upto(index)) => Some(purged.max(index)),
        Some(Loss::Unknown) => None,
    };
    for round in 0_u32.. {
        for (peer, address) in &asked {
            match take(*peer, address, &mut needed, peers, log, snapshots).await {
                Ok(position) => {
                    tracing::warn!(peer, index = position.index, "the state was made anew from that of a peer");
                    return Ok(repaired);
                }
                Err(error) if round % SAY_EVERY == 0 => tracing::warn!(peer, %error, "no state from this peer"),
                Err(error) => tracing::debug!(peer, %error, "no state from this peer"),
            }
        }
        TypeConfig::sleep(PAUSE).await;
    }
    Ok(repaired)
}

/// Takes the state of a peer. When nobody knows how far it must reach, the peer has to lead and to say so first.
async fn take(
    peer: u64,
    address: &str,
    needed: &mut Option<u64>,
    peers: &Peers,
    log: &Arc<dyn LogEngine>,
    snapshots: &Arc<dyn SnapshotHome>,
) -> Result<Position, SnapshotFailed> {
    let connection = peers.connect(peer, address).ok_or_else(|| SnapshotFailed("it cannot be dialled".into()))?;
    let needed = match *needed {
        Some(needed) => needed,
        None => {
            let question = Body::Rejoin(RejoinRequest {});
            let answer = connection.control(question, REJOIN_TIMEOUT).await;
            let end = match answer.map_err(|error| SnapshotFailed(error.to_string()))? {
                Body::RejoinReply(RejoinReply { result: Some(rejoin_reply::Result::LastLogIndex(end)) }) => end,
                Body::RejoinReply(_) => return Err(SnapshotFailed("it does not lead".into())),
                _ => return Err(SnapshotFailed("it gave an answer this release does not know".into())),
            };
            tracing::info!(peer, end, "the leader's log ends there: the state taken must reach as far");
            *needed.insert(end)
        }
    };
    let mut sink = fetch(&connection, needed, Arc::clone(snapshots)).await?;
    let position = sink.position();
    if position.index < needed {
        let reason = format!("its state ends at entry {}, and {needed} is needed", position.index);
        return Err(SnapshotFailed(reason));
    }
    sink = blocking(move || {
        sink.verify()?;
        Ok(sink)
    })
    .await?;
    if log.loss().is_none() {
        fit_log(log, position).await?;
    }
    blocking(move || sink.install()).await?;
    if log.loss().is_some() {
        go_on_at(log, position).await?;
    }
    Ok(position)
}

/// A durable state covers what the log has lost: the log goes on from there.
async fn go_on_at(log: &Arc<dyn LogEngine>, position: Position) -> Result<(), SnapshotFailed> {
    fit_log(log, position).await?;
    let (done, durable) = oneshot::channel();
    // The receiver is right here.
    log.make_good(position, Box::new(move |result| drop(done.send(result))));
    let failed = |error: quilt_storage::LogError| SnapshotFailed(error.to_string());
    durable.await.map_err(|_| SnapshotFailed("the log has ended".into()))?.map_err(failed)
}

/// Cuts off what contradicts the state: at `position` stands what was agreed on, so whatever else is there never was. Nor was
/// what follows it there under an older leader.
async fn fit_log(log: &Arc<dyn LogEngine>, position: Position) -> Result<(), SnapshotFailed> {
    let bounds = log.bounds();
    let Some(last) = bounds.last else { return Ok(()) };
    let first = bounds.purged.map_or(0, |purged| purged.index + 1);
    let looked_at = if position.index >= first { position.index } else { position.index + 1 };
    if looked_at < first || looked_at > last.index {
        return Ok(());
    }
    let failed = |error: quilt_storage::LogError| SnapshotFailed(error.to_string());
    let records = log.read(looked_at..looked_at + 1).map_err(failed)?;
    let fits = |term| if looked_at == position.index { term == position.term } else { term >= position.term };
    if records.first().is_some_and(|record| fits(record.term)) {
        return Ok(());
    }
    tracing::warn!(index = looked_at, "the log ends in entries that were never agreed on: cutting them off");
    let (done, durable) = oneshot::channel();
    // The receiver is right here.
    log.truncate_after(looked_at.checked_sub(1), Box::new(move |result| drop(done.send(result))));
    durable.await.map_err(|_| SnapshotFailed("the log has ended".into()))?.map_err(failed)
}

/// Makes a snapshot of a state that is ahead of its log, as it may be after the power went: openraft lets go of the whole
/// log then, and counts on a snapshot for what is gone. Without one this replica could bring up no other. The same goes for
/// a log that begins where a state has made it good.
pub(crate) async fn cover(
    machine: &Machine<dyn Store>,
    log: &dyn LogEngine,
    snapshots: &Arc<dyn SnapshotHome>,
) -> Result<(), SnapshotFailed> {
    let Some(applied) = machine.position() else { return Ok(()) };
    let ends = log.bounds().last.map_or(0, |last| last.index);
    let covered = snapshots.newest().map_or(0, |newest| newest.position().index);
    let purged = log.bounds().purged.map_or(0, |purged| purged.index);
    let needed = if ends < applied.index { applied.index } else { purged };
    if covered >= needed || exhibit!(AheadOfLogUncovered) {
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
        // Behind what was purged: the next entry must not be of an older leader.
        log.purge(at(4, 1), Box::new(|_| ()));
        fit_log(&log, at(4, 2)).await.expect("fits");
        assert_eq!(log.bounds().last.expect("held").index, 6);
        fit_log(&log, at(4, 3)).await.expect("cut");
        assert_eq!(log.bounds().last.expect("purged").index, 4);
    }
}
