//! Room on the disk: below a reserve the leader takes no new objects, and below a quarter of it nothing but deletions, so
//! that there is always room to delete, to compact and to recover. Both end by themselves when there is room again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use quilt_proto::{Txn, compare, op};

use crate::snapshot::SnapshotHome;
use crate::types::TypeConfig;

/// The limit that a refused write names.
pub const DISK_RESERVE: &str = "DISK_RESERVE";

/// Of a small file system no more than this part is kept free.
const SHARE_OF_TOTAL: u64 = 20;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    Enough,
    /// Below the reserve: what is there may be changed and deleted.
    Low,
    /// Far below it: what is there may be deleted.
    Out,
}

/// How much room there is now. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    room: Arc<AtomicU8>,
}

impl Space {
    pub(crate) fn room(&self) -> Room {
        match self.room.load(Ordering::Relaxed) {
            0 => Room::Enough,
            1 => Room::Low,
            _ => Room::Out,
        }
    }

    /// Whether a transaction is taken; if not, by which limit.
    pub(crate) fn admits(&self, txn: &Txn) -> Result<(), &'static str> {
        let taken = match self.room() {
            Room::Enough => true,
            Room::Low => txn.ops.iter().all(|op| !puts(op) || changes_only(txn, op.key())),
            Room::Out => !txn.ops.iter().any(puts),
        };
        if taken { Ok(()) } else { Err(DISK_RESERVE) }
    }

    /// Looks until the replica stops.
    pub(crate) async fn watch(self, snapshots: Arc<dyn SnapshotHome>, reserve_bytes: u64) {
        loop {
            if let Some((free, total)) = snapshots.space() {
                let before = self.room();
                let now = judge(before, free, reserve_bytes.min(total / SHARE_OF_TOTAL));
                self.room.store(now as u8, Ordering::Relaxed);
                if now > before {
                    tracing::error!(
                        free,
                        reserve_bytes,
                        ?now,
                        "the disk is nearly full: the leader refuses what makes it fuller"
                    );
                } else if now < before {
                    tracing::warn!(free, ?now, "there is room on the disk again");
                }
            }
            TypeConfig::sleep(LOOK).await;
        }
    }
}

fn puts(op: &quilt_proto::Op) -> bool {
    matches!(op.kind, Some(op::Kind::Put(_)))
}

/// Whether a put to this key takes place only where something is already.
fn changes_only(txn: &Txn, key: &[u8]) -> bool {
    txn.compares.iter().any(|compare| {
        let there = match compare.condition {
            Some(compare::Condition::ModRevision(revision)) => revision != 0,
            Some(compare::Condition::Exists(exists)) => exists,
            None => false,
        };
        there && compare.key == key
    })
}

/// A quarter more than a limit has to be free before it counts as kept again: writes must not flap.
fn judge(before: Room, free: u64, reserve: u64) -> Room {
    let slack = |limit: u64| limit + limit / 4;
    let out = reserve / 4;
    match before {
        Room::Out if free < slack(out) => Room::Out,
        _ if free < out => Room::Out,
        Room::Out | Room::Low if free < slack(reserve) => Room::Low,
        _ if free < reserve => Room::Low,
        _ => Room::Enough,
    }
}

#[cfg(test)]
mod tests {
    use quilt_proto::{Compare, Key, Op, Revision};

    use super::*;

    /// The limits are left later than they are reached.
    #[test]
    fn limits_do_not_flap() {
        use Room::{Enough, Low, Out};

        let levels = [110, 99, 110, 124, 125, 30, 24, 26, 31, 32, 124, 125, 24];
        let mut room = Enough;
        let seen: Vec<Room> = levels
            .into_iter()
            .map(|free| {
                room = judge(room, free, 100);
                room
            })
            .collect();
        assert_eq!(seen, [Enough, Low, Low, Low, Enough, Low, Out, Out, Low, Low, Low, Enough, Out]);
    }

    /// What deletes is always taken, what changes an object while there is some room, what makes one only with enough.
    #[test]
    fn what_frees_is_always_taken() {
        let key = Key::new("c", "", "things", "", "x").expect("valid");
        let delete = Txn::new(vec![], vec![Op::delete(&key)]);
        let update = Txn::new(vec![Compare::at(&key, Revision::new(7))], vec![Op::put(&key, "v")]);
        let create = Txn::new(vec![Compare::absent(&key)], vec![Op::put(&key, "v")]);
        let blind = Txn::new(vec![], vec![Op::put(&key, "v")]);
        let space = Space::default();
        for (room, taken) in [(0, [true; 4]), (1, [true, true, false, false]), (2, [true, false, false, false])] {
            space.room.store(room, Ordering::Relaxed);
            assert_eq!([&delete, &update, &create, &blind].map(|txn| space.admits(txn).is_ok()), taken);
        }
    }
}
