//! Clients that claim what only so many may have: a pod's place, a use of a token, a subnet. Their transactions have the
//! shape of the product's: what was seen is compared where it is changed, and what must be alone has a key of its own that
//! must not exist.

use std::time::Duration;

use quilt_proto::{Key, Record, Revision};
use quilt_raft_simulated::model::Host;
use quilt_raft_simulated::{Consistency, Replica};

use crate::client::{Client, Wanted};
use crate::flaw::Flaw;
use crate::node::on;
use crate::world::CLUSTER;

const PODS: u64 = 4;
const TOKENS: u64 = 2;
const NODES: u64 = 6;
const SUBNETS: u64 = 8;

/// What the value of a key of this module says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says<'a> {
    /// A pod that waits for a place.
    Waiting,
    /// A pod on a node.
    Placed(&'a str),
    /// A token: its serial number, how many it admits, and how many it has.
    Token(&'a str, u64, u64),
    /// Somebody who was admitted by the token of this serial number.
    Admitted(&'a str),
    /// A node that has a subnet.
    Holds(u64),
    /// A subnet that is held.
    Held,
}

/// What a value says; `None` for those of other clients.
pub(crate) fn says(value: &[u8]) -> Option<Says<'_>> {
    let text = std::str::from_utf8(value).ok()?;
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["waiting", ..] => Some(Says::Waiting),
        ["on", node, ..] => Some(Says::Placed(node)),
        ["token", serial, of, used, ..] => Some(Says::Token(serial, of.parse().ok()?, used.parse().ok()?)),
        ["admitted", serial, ..] => Some(Says::Admitted(serial)),
        ["holds", subnet, ..] => Some(Says::Holds(subnet.parse().ok()?)),
        ["held", ..] => Some(Says::Held),
        _ => None,
    }
}

fn key(resource: &str, name: &str) -> Key {
    Key::new(CLUSTER, "", resource, "default", name).expect("plain words make a key")
}

/// The revision a planted bug forgets to compare.
fn unless(flaw: Flaw, revision: u64) -> Option<Revision> {
    (!flaw.is_shown()).then(|| Revision::new(revision))
}

impl Client {
    /// Claims something.
    pub(crate) async fn claim(&mut self, host: &Host, replica: &Replica) {
        let wanted = match self.dice.below(3) {
            0 => self.place(host, replica).await,
            1 => self.redeem(host, replica).await,
            _ => self.allocate(host, replica).await,
        };
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
            if self.dice.percent(25) {
                // As a scheduler that stood still and goes on from what it knew.
                let still = self.dice.between(1, 2 * self.scene.plan.think_ms_max);
                self.scene.think(Duration::from_millis(still)).await;
            }
            self.propose(host, replica, wanted).await;
        }
    }

    /// What keys hold here, as a cache would know it.
    async fn held(&mut self, host: &Host, replica: &Replica, keys: Vec<Key>) -> Option<Vec<(Key, Option<Record>)>> {
        let asked = replica.clone();
        let looking = on(host, async move {
            let view = asked.read(Consistency::Stale, Duration::from_secs(2)).await.ok()?;
            keys.into_iter().map(|key| view.get(&key).ok().map(|record| (key, record))).collect()
        });
        looking.await.flatten()
    }

    fn write(&mut self, key: Key, says: &str, expected: Option<Revision>) -> Wanted {
        let value = format!("{says} {}", self.unique()).into();
        Wanted { key, value: Some(value), ttl_ms: 0, expected }
    }

    /// Places pods, several in one transaction; makes those there are none of, and ends some.
    async fn place(&mut self, host: &Host, replica: &Replica) -> Option<Vec<Wanted>> {
        let first = self.dice.below(PODS);
        let pods =
            (0..self.dice.between(1, 3)).map(|more| key("pods", &format!("p{}", (first + more) % PODS))).collect();
        let mut wanted = Vec::new();
        for (pod, record) in self.held(host, replica, pods).await? {
            let Some(record) = record else {
                wanted.push(self.write(pod, "waiting", Some(Revision::new(0))));
                continue;
            };
            match says(&record.value) {
                Some(Says::Waiting) => {
                    let place = format!("on node-{}", self.dice.below(NODES));
                    wanted.push(self.write(pod, &place, unless(Flaw::BindUnchecked, record.mod_revision)));
                }
                _ if self.dice.percent(30) => {
                    let expected = Some(Revision::new(record.mod_revision));
                    wanted.push(Wanted { key: pod, value: None, ttl_ms: 0, expected });
                }
                _ => {}
            }
        }
        Some(wanted)
    }

    /// Uses a token in the entry that admits; issues one there is none of, and ends one that is used up.
    async fn redeem(&mut self, host: &Host, replica: &Replica) -> Option<Vec<Wanted>> {
        let token = key("tokens", &format!("t{}", self.dice.below(TOKENS)));
        let (token, record) = self.held(host, replica, vec![token]).await?.pop()?;
        let Some(record) = record else {
            let fresh = format!("token {} {} 0", self.unique(), self.dice.between(1, 4));
            return Some(vec![self.write(token, &fresh, Some(Revision::new(0)))]);
        };
        let Some(Says::Token(serial, of, used)) = says(&record.value) else { return None };
        if used < of {
            let admitted = key("identities", &self.unique());
            let counted = format!("token {serial} {of} {}", used + 1);
            return Some(vec![
                self.write(token, &counted, unless(Flaw::TokenUnchecked, record.mod_revision)),
                self.write(admitted, &format!("admitted {serial}"), Some(Revision::new(0))),
            ]);
        }
        let expected = Some(Revision::new(record.mod_revision));
        Some(vec![Wanted { key: token, value: None, ttl_ms: 0, expected }])
    }

    /// Gives a node a subnet that nobody holds, by a key that must not exist; or takes it back with that key.
    async fn allocate(&mut self, host: &Host, replica: &Replica) -> Option<Vec<Wanted>> {
        let node = key("nodes", &format!("n{}", self.dice.below(NODES)));
        let index = |subnet: u64| key("subnets", &format!("s{subnet}"));
        let keys = std::iter::once(node).chain((0..SUBNETS).map(index)).collect();
        let mut held = self.held(host, replica, keys).await?;
        let (node, record) = held.remove(0);
        match record.as_ref().map(|record| (says(&record.value), record.mod_revision)) {
            None => {
                let free = held.iter().position(|(_, taken)| taken.is_none())? as u64;
                Some(vec![
                    self.write(node, &format!("holds {free}"), Some(Revision::new(0))),
                    self.write(index(free), "held", unless(Flaw::SubnetUnchecked, 0)),
                ])
            }
            Some((Some(Says::Holds(subnet)), revision)) if self.dice.percent(50) => {
                let index = index(subnet);
                let (_, taken) = held.into_iter().find(|(key, _)| *key == index)?;
                let gone = |key: Key, revision: u64| Wanted {
                    key,
                    value: None,
                    ttl_ms: 0,
                    expected: Some(Revision::new(revision)),
                };
                Some(vec![gone(node, revision), gone(index, taken?.mod_revision)])
            }
            Some(_) => Some(Vec::new()),
        }
    }
}
