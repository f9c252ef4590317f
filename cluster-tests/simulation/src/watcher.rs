//! Watches: each follows a prefix through one replica after the other, from where the last one stopped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use quilt_proto::{KeyPrefix, Revision};
use quilt_raft_simulated::model::{Dice, sleep};
use quilt_raft_simulated::{Replica, WatchError};

use crate::node::on;
use crate::sight::Sight;
use crate::world::{CLUSTER, Scene};

/// Positions a client remembers.
const PAST_MAX: usize = 16;

pub(crate) struct Watcher {
    pub(crate) scene: Arc<Scene>,
    pub(crate) dice: Dice,
}

impl Watcher {
    pub(crate) async fn run(mut self) {
        let prefix = if self.dice.percent(50) {
            KeyPrefix::cluster(CLUSTER)
        } else {
            KeyPrefix::namespace(CLUSTER, "", "things", "n1")
        };
        let prefix = prefix.expect("plain words make a prefix");
        let position = Arc::new(AtomicU64::new(0));
        let mut past = VecDeque::new();
        while self.scene.is_watching() {
            sleep(Duration::from_millis(self.dice.between(1, 200))).await;
            let nodes = self.scene.nodes();
            let Some((host, replica)) = self.dice.pick(&nodes).and_then(|node| node.replica()) else { continue };
            // As a client that comes back after a while: from something it was once told.
            if self.dice.percent(20)
                && let Some(old) = self.dice.pick(past.make_contiguous())
            {
                position.store(*old, Ordering::Relaxed);
            }
            past.push_back(position.load(Ordering::Relaxed));
            if past.len() > PAST_MAX {
                past.pop_front();
            }
            let (scene, dice) = (Arc::clone(&self.scene), self.dice.child(self.scene.next_number()));
            let following = follow(scene, dice, replica, prefix.clone(), Arc::clone(&position));
            // When the host ends, the position says where to go on.
            let _ = on(&host, following).await;
        }
    }
}

async fn follow(scene: Arc<Scene>, mut dice: Dice, replica: Replica, prefix: KeyPrefix, position: Arc<AtomicU64>) {
    let id = replica.id().0;
    let mut from = position.load(Ordering::Relaxed);
    let mut stream = replica.watch(prefix.clone(), Revision::new(from));
    let prefix = prefix.bytes().clone();
    let rounds = dice.between(1, 30);
    for _ in 0..rounds {
        if !scene.is_watching() {
            return;
        }
        if dice.percent(15) {
            // A slow reader.
            sleep(Duration::from_millis(dice.between(10, 4_000))).await;
        }
        if dice.percent(30) {
            // Asked how far it has come with events on their way; and sometimes that is where it goes on elsewhere.
            let upto = stream.position().get();
            scene.ledger.see(&Sight::Idle { prefix: &prefix, replica: id, from, upto });
            from = from.max(upto);
            position.store(from, Ordering::Relaxed);
            if dice.percent(20) {
                return;
            }
        }
        let patience = Duration::from_millis(dice.between(5, scene.plan.pace.patience_ms_max()));
        let next = {
            let (next, late) = (std::pin::pin!(stream.next()), std::pin::pin!(sleep(patience)));
            match select(next, late).await {
                Either::Left((next, _)) => Some(next),
                Either::Right(_) => None,
            }
        };
        match next {
            Some(Ok(batch)) => {
                let upto = batch.upto.get();
                let events = &batch.events;
                scene.ledger.see(&Sight::Delivered { prefix: &prefix, replica: id, from, events, upto });
                from = upto;
            }
            None => {
                let upto = stream.position().get();
                scene.ledger.see(&Sight::Idle { prefix: &prefix, replica: id, from, upto });
                from = from.max(upto);
            }
            Some(Err(WatchError::Compacted { floor })) => {
                let floor = floor.get();
                scene.ledger.see(&Sight::Refused { replica: id, from, floor });
                position.store(floor.max(from), Ordering::Relaxed);
                return;
            }
            Some(Err(WatchError::Stopped)) => return,
            Some(Err(error)) => {
                scene.ledger.accuse("a watch ends for a reason", format!("replica {id}: {error}"));
                return;
            }
        }
        position.store(from, Ordering::Relaxed);
    }
}
