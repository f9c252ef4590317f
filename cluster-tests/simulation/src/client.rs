//! Clients: each asks one replica after the other for writes and reads, and says in the ledger what it asked and was told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quilt_proto::{Compare, Key, Op, Put, Revision, Txn};
use quilt_raft_simulated::model::{Dice, Host};
use quilt_raft_simulated::{Consistency, Decision, ProposeError, Replica};

use crate::node::on;
use crate::sight::{Ended, Sight, Wrote};
use crate::world::{CLUSTER, Scene};

/// Keys that are lent for some time, and then expire.
const LENT: u64 = 4;

fn lent(number: u64) -> Key {
    named(&format!("ttl{number}"), number)
}

pub(crate) fn key(number: u64) -> Key {
    named(&format!("k{number}"), number)
}

fn named(name: &str, number: u64) -> Key {
    Key::new(CLUSTER, "", "things", &format!("n{}", number % 3), name).expect("plain words make a key")
}

pub(crate) struct Client {
    pub(crate) scene: Arc<Scene>,
    pub(crate) number: u64,
    pub(crate) dice: Dice,
    pub(crate) made: u64,
    pub(crate) trade: Trade,
}

/// One write to be.
pub(crate) struct Wanted {
    pub(crate) key: Key,
    pub(crate) value: Option<Bytes>,
    pub(crate) ttl_ms: u64,
    /// The revision the key must be at.
    pub(crate) expected: Option<Revision>,
}

/// What a client is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trade {
    /// Keys of all kinds, and what they hold.
    Things,
    /// What only so many may have.
    Claims,
}

impl Client {
    /// A word of which there is no second.
    pub(crate) fn unique(&mut self) -> String {
        self.made += 1;
        format!("c{}-{}", self.number, self.made)
    }

    fn value(&mut self) -> Bytes {
        // Of many sizes, so that limits by bytes are met at odd places.
        let padding = usize::try_from(self.dice.below(200)).unwrap_or(0);
        format!("{}-{}", self.unique(), "x".repeat(padding)).into()
    }

    fn any_key(&mut self) -> Key {
        key(self.dice.below(self.scene.plan.keys))
    }

    fn any_replica(&mut self) -> Option<(Host, Replica)> {
        let nodes = self.scene.nodes();
        self.dice.pick(&nodes)?.replica()
    }

    pub(crate) async fn run(mut self) {
        while self.scene.is_loading() {
            let think = Duration::from_millis(self.dice.between(1, self.scene.plan.think_ms_max));
            self.scene.think(think).await;
            let Some((host, replica)) = self.any_replica() else { continue };
            if self.trade == Trade::Claims {
                self.claim(&host, &replica).await;
                continue;
            }
            if self.dice.percent(self.scene.plan.reads_percent) {
                let stale = self.dice.percent(30);
                let consistency = if stale { Consistency::Stale } else { Consistency::Linearizable };
                self.read(&host, &replica, consistency).await;
                continue;
            }
            match self.dice.below(80) {
                0..30 => self.put(&host, &replica, 1).await,
                30..42 => self.create(&host, &replica).await,
                42..58 => self.swap(&host, &replica).await,
                58..68 => {
                    let ops = self.dice.between(2, 4);
                    self.put(&host, &replica, ops).await;
                }
                68..75 => self.delete(&host, &replica).await,
                _ => self.lend(&host, &replica).await,
            }
        }
    }

    async fn put(&mut self, host: &Host, replica: &Replica, ops: u64) {
        let mut wanted: Vec<Wanted> = Vec::new();
        for _ in 0..ops {
            let key = self.any_key();
            if wanted.iter().all(|other| other.key != key) {
                wanted.push(Wanted { key, value: Some(self.value()), ttl_ms: 0, expected: None });
            }
        }
        self.propose(host, replica, wanted).await;
    }

    async fn create(&mut self, host: &Host, replica: &Replica) {
        let (key, value) = (self.any_key(), self.value());
        let expected = Some(Revision::new(0));
        self.propose(host, replica, vec![Wanted { key, value: Some(value), ttl_ms: 0, expected }]).await;
    }

    async fn swap(&mut self, host: &Host, replica: &Replica) {
        let (key, value) = (self.any_key(), self.value());
        let (asked, of) = (replica.clone(), key.clone());
        let held = on(host, async move {
            let view = asked.read(Consistency::Stale, Duration::from_secs(2)).await.ok()?;
            view.get(&of).ok().map(|record| record.map_or(0, |record| record.mod_revision))
        });
        let Some(Some(held)) = held.await else { return };
        let expected = Some(Revision::new(held));
        self.propose(host, replica, vec![Wanted { key, value: Some(value), ttl_ms: 0, expected }]).await;
    }

    async fn delete(&mut self, host: &Host, replica: &Replica) {
        let key = self.any_key();
        self.propose(host, replica, vec![Wanted { key, value: None, ttl_ms: 0, expected: None }]).await;
    }

    async fn lend(&mut self, host: &Host, replica: &Replica) {
        let number = self.dice.below(LENT);
        let (key, value) = (lent(number), self.value());
        let ttl_ms = self.dice.between(50, 5_000);
        self.propose(host, replica, vec![Wanted { key, value: Some(value), ttl_ms, expected: None }]).await;
    }

    pub(crate) async fn propose(&mut self, host: &Host, replica: &Replica, wanted: Vec<Wanted>) {
        let request = self.scene.next_number();
        let writes: Vec<_> = wanted
            .iter()
            .map(|wanted| Wrote {
                key: wanted.key.bytes().clone(),
                value: wanted.value.clone(),
                expected: wanted.expected.map(Revision::get),
            })
            .collect();
        let mut txn = Txn::new(Vec::new(), Vec::new());
        for Wanted { key, value, ttl_ms, expected } in wanted {
            txn.compares.extend(expected.map(|revision| Compare::at(&key, revision)));
            txn.ops.push(match value {
                Some(value) => Put { key: key.bytes().clone(), value, ttl_ms, ..Put::default() }.into(),
                None => Op::delete(&key),
            });
        }
        let deadline = Duration::from_millis(self.dice.between(300, 10_000));
        let ledger = Arc::clone(&self.scene.ledger);
        ledger.see(&Sight::Asked { request, writes: &writes });
        let asked = replica.clone();
        let answer = on(host, async move { asked.propose(txn, deadline).await }).await;
        let ended = match answer {
            Some(Ok(Decision::Applied { first, last, .. })) => Ended::Applied(first.get(), last.get()),
            Some(Ok(Decision::Rejected { .. })) => Ended::Rejected,
            Some(Err(ProposeError::NotApplied | ProposeError::NotLeader | ProposeError::Overloaded { .. })) => {
                Ended::NotApplied
            }
            Some(Err(ProposeError::Invalid(text))) => {
                ledger.accuse("a well-formed request is taken", text);
                Ended::Unknown
            }
            Some(Err(_)) | None => Ended::Unknown,
        };
        ledger.see(&Sight::Answered { request, ended });
    }

    async fn read(&mut self, host: &Host, replica: &Replica, consistency: Consistency) {
        let keys: Vec<Key> = (0..self.dice.between(1, 3)).map(|_| self.any_key()).collect();
        let ledger = Arc::clone(&self.scene.ledger);
        let read = (consistency == Consistency::Linearizable).then(|| self.scene.next_number());
        if let Some(read) = read {
            ledger.see(&Sight::ReadBegan { read });
        }
        if let Some(Seen { revision, found, written }) = look(host, replica, consistency, keys).await {
            let replica = replica.id().0;
            ledger.see(&Sight::ReadEnded { read, replica, revision, found: &found, written: &written });
        }
    }
}

/// What a read gave.
pub(crate) struct Seen {
    /// Where its view stands.
    pub(crate) revision: u64,
    /// What keys hold.
    pub(crate) found: Vec<(Bytes, Option<Bytes>)>,
    /// The same, asked for at that revision.
    pub(crate) written: Vec<(Bytes, Option<Bytes>)>,
}

/// What some keys hold, and all that are lent; `None` when the replica could not say.
pub(crate) async fn look(host: &Host, replica: &Replica, consistency: Consistency, keys: Vec<Key>) -> Option<Seen> {
    let asked = replica.clone();
    let looking = on(host, async move {
        let view = asked.read(consistency, Duration::from_secs(5)).await.ok()?;
        let at = view.at(view.revision()).ok()?;
        let (mut found, mut written) = (Vec::new(), Vec::new());
        for key in keys.into_iter().chain((0..LENT).map(lent)) {
            for (view, values) in [(&view, &mut found), (&at, &mut written)] {
                let record = view.get(&key).ok()?;
                values.push((key.bytes().clone(), record.map(|record| record.value)));
            }
        }
        Some(Seen { revision: view.revision().get(), found, written })
    });
    looking.await.flatten()
}
