//! Writers on several replicas, and watches there that must see exactly what was written.

use std::collections::BTreeSet;

use quilt_proto::{KeyPrefix, Revision};
use quilt_raft::EventStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Cluster, DEADLINE, create, last};

pub(crate) struct Traffic {
    stop: watch::Sender<bool>,
    writers: JoinSet<Vec<Revision>>,
    watches: Vec<EventStream>,
}

impl Traffic {
    /// Begins to write and to watch on every replica but `spared`.
    pub(crate) fn around(cluster: &Cluster, spared: u64) -> Self {
        let prefix = KeyPrefix::resource("default", "", "configmaps").expect("valid");
        let (stop, stopped) = watch::channel(false);
        let mut traffic = Self { stop, writers: JoinSet::new(), watches: Vec::new() };
        for id in cluster.ids().into_iter().filter(|id| *id != spared) {
            let (replica, stopped) = (cluster.get(id).clone(), stopped.clone());
            traffic.watches.push(replica.watch(prefix.clone(), Revision::ZERO));
            traffic.writers.spawn(async move {
                let mut written = Vec::new();
                while !*stopped.borrow() {
                    let name = format!("w{id}-{}", written.len());
                    // Rejected would mean that the same request took effect twice.
                    written.push(last(replica.propose(create(&name), DEADLINE).await.expect("decided")));
                }
                written
            });
        }
        traffic
    }

    /// Ends the writers: every create was applied exactly once, and each watch saw each exactly once, in order, without a
    /// gap.
    pub(crate) async fn judge(mut self, cluster: &Cluster) {
        self.stop.send(true).expect("writers listen");
        let mut written = BTreeSet::new();
        while let Some(revisions) = self.writers.join_next().await {
            for revision in revisions.expect("no panic") {
                assert!(written.insert(revision), "revision {revision} given twice");
            }
        }
        assert_eq!(cluster.same_state().await, written.last().expect("many").get());
        for watch in &mut self.watches {
            let mut seen = Vec::new();
            while seen.len() < written.len() {
                let batch = tokio::time::timeout(DEADLINE, watch.next()).await.expect("in time").expect("open");
                seen.extend(batch.events.iter().map(|event| event.revision));
            }
            assert!(seen.iter().eq(written.iter()), "a watch saw other revisions than were written");
        }
    }
}
