//! An operator: hands leadership over, makes snapshots, cuts logs, compacts history, and replaces replicas. What is asked
//! may be refused or time out; nothing of it may break anything.

use std::sync::Arc;
use std::time::Duration;

use quilt_proto::{ClusterId, ReplicaId, Revision};
use quilt_raft_simulated::model::{Dice, sleep};

use crate::disk::End;
use crate::node::{Node, on};
use crate::plan::Plan;
use crate::sight::Sight;
use crate::world::{CLUSTER, Scene};

/// Never more machines than this, all that came and went included.
const NODES_MAX: usize = 12;

pub(crate) struct Operator {
    pub(crate) scene: Arc<Scene>,
    pub(crate) dice: Dice,
}

impl Operator {
    pub(crate) async fn run(mut self) {
        while self.scene.is_breaking() {
            let pause = Plan::around(&mut self.dice, self.scene.plan.command_every_ms);
            sleep(pause).await;
            if !self.scene.is_breaking() {
                return;
            }
            let nodes = self.scene.nodes();
            let Some(node) = self.dice.pick(&nodes).cloned() else { continue };
            match self.dice.below(100) {
                0..25 => self.transfer(&node).await,
                25..45 => self.snapshot(&node).await,
                45..65 => self.cut_log(&node).await,
                65..80 => self.compact().await,
                _ if self.scene.plan.membership_changes => self.change_members(&nodes).await,
                _ => {}
            }
        }
    }

    fn said(&self, what: &str, result: &impl std::fmt::Debug) {
        self.scene.ledger.count(|tally| tally.commands += 1);
        self.scene.ledger.note(&format!("operator: {what}: {result:?}"));
    }

    async fn transfer(&mut self, node: &Node) {
        let Some((host, replica)) = node.replica() else { return };
        let nodes = self.scene.nodes();
        let to = self.dice.pick(&nodes).map(|node| ReplicaId(node.id)).filter(|_| self.dice.percent(70));
        let done = on(&host, async move { replica.admin().transfer_leadership(to).await }).await;
        self.said("transfer", &done);
    }

    async fn snapshot(&mut self, node: &Node) {
        let Some((host, replica)) = node.replica() else { return };
        let done = on(&host, async move { replica.admin().snapshot().await }).await;
        self.said("snapshot", &done);
    }

    async fn cut_log(&mut self, node: &Node) {
        let Some((host, replica)) = node.replica() else { return };
        let keep = self.dice.between(0, 8 << 10);
        let done = on(&host, async move { replica.admin().cut_log(keep).await }).await;
        self.said("cut log", &done);
    }

    async fn compact(&mut self) {
        let Some((host, replica)) = self.scene.leader().and_then(|node| node.replica()) else { return };
        let keep = self.dice.between(0, 200);
        let ledger = Arc::clone(&self.scene.ledger);
        let done = on(&host, async move {
            // A floor lies where a view could stand; some way back one is found by asking for the newest only.
            let view = replica.read(quilt_raft_simulated::Consistency::Stale, Duration::from_secs(1)).await.ok()?;
            let floor = Revision::new(view.revision().get().saturating_sub(keep));
            let floor = if keep < 50 { view.revision() } else { floor };
            let cluster = ClusterId(CLUSTER.into());
            ledger.see(&Sight::Compacting { floor: floor.get() });
            Some((floor, replica.admin().compact(&cluster, floor).await))
        });
        let done = done.await;
        self.said("compact", &done);
    }

    async fn change_members(&mut self, nodes: &[Arc<Node>]) {
        let Some((host, replica)) = self.dice.pick(nodes).and_then(|node| node.replica()) else { return };
        if self.dice.percent(50) && self.scene.all_nodes().len() < NODES_MAX {
            let node = self.scene.add_node();
            node.start(&self.scene);
            let (id, address) = (ReplicaId(node.id), node.address.clone());
            let done = on(&host, async move {
                let admin = replica.admin();
                admin.add_learner(id, address).await?;
                admin.promote(id, Duration::from_secs(20)).await
            });
            let done = done.await;
            self.said("add", &done);
            return;
        }
        let asked = replica.clone();
        let Some(status) = on(&host, async move { asked.status() }).await else { return };
        let voters: Vec<u64> = status.members.iter().filter(|member| member.voter).map(|member| member.id.0).collect();
        if voters.len() <= 2 {
            return;
        }
        let Some(gone) = self.dice.pick(&voters).copied() else { return };
        let demotes = self.dice.percent(30);
        let done = on(&host, async move {
            let admin = replica.admin();
            if demotes { admin.demote(ReplicaId(gone)).await } else { admin.remove(ReplicaId(gone)).await }
        });
        let done = done.await;
        self.said(if demotes { "demote" } else { "remove" }, &(gone, &done));
        if !demotes
            && matches!(done, Some(Ok(())))
            && let Some(node) = self.scene.all_nodes().into_iter().find(|node| node.id == gone)
        {
            node.crash(End::Process, &self.scene);
            self.scene.retire(gone);
        }
    }
}
