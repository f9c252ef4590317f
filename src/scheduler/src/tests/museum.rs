//! Exhibits of the bug museum: bugs planted into how bindings are written, each convicted by what must hold of Pods and nodes at every
//! revision. The switch is there in these tests only.

use std::cell::Cell;

use quilt_proto::{Key, KeyPrefix, Op, ReplicaId, Txn};
use quilt_raft::{Consistency, Decision as Committed, Limit, Replica, View};
use serde_json::{Value, json};

use super::rows::{DEADLINE, key, put};
use crate::bind::{Basis, Batch, Binding};
use crate::decide::{Decision, decide};
use crate::node::Node;
use crate::pod::Pod;
use crate::snapshot::Snapshot;

const NOW: &str = "2026-01-01T00:00:00Z";
/// Interleavings that an exhibit is tried in.
const SEEDS: u64 = 20;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exhibit {
    /// A binding does not rest on the Pod still being as it was decided for.
    PodUnguarded,
    /// A binding does not rest on the node still offering what was decided on.
    NodeUnguarded,
}

thread_local! {
    static SHOWN: Cell<Option<Exhibit>> = const { Cell::new(None) };
}

/// Whether the bug on show leaves out this precondition.
pub(crate) fn leaves_out(basis: &Basis) -> bool {
    match SHOWN.get() {
        None => false,
        Some(Exhibit::PodUnguarded) => matches!(basis, Basis::Pod(_)),
        Some(Exhibit::NodeUnguarded) => matches!(basis, Basis::Shared(_)),
    }
}

/// Chance from a seed (`SplitMix64`).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn node(cpu: u64) -> Value {
    json!({"metadata": {"labels": {"quilt.sh/agent": "true"}}, "spec": {},
        "status": {"allocatable": {"cpu": format!("{cpu}m")}, "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn pod(cpu: u64) -> Value {
    let resources = json!({"requests": {"cpu": format!("{cpu}m")}});
    json!({"metadata": {}, "spec": {"containers": [{"name": "main", "resources": resources}]}, "status": {"phase": "Pending"}})
}

async fn propose(replica: &Replica, txn: Txn) -> bool {
    matches!(replica.propose(txn, DEADLINE).await.expect("proposed"), Committed::Applied { .. })
}

/// What a scheduler that has just begun to lead knows.
async fn look(replica: &Replica) -> (View, Snapshot) {
    let view = replica.read(Consistency::Linearizable, DEADLINE).await.expect("read");
    let mut snapshot = Snapshot::default();
    for resource in ["nodes", "pods"] {
        let prefix = KeyPrefix::resource("default", "", resource).expect("valid");
        let page = view.scan(&prefix, None, Limit { records: 1_000, bytes: 8 << 20 }).expect("readable");
        for (key, record) in page.records {
            match resource {
                "nodes" => snapshot.put_node(Node::read(&key, &record).expect("a node")),
                _pods => snapshot.put_pod(&key, Pod::read(&key, &record).expect("a pod")),
            }
        }
    }
    (view, snapshot)
}

/// Binds every Pod that waits, on this view: the transaction a scheduler proposes.
fn bindings(view: &View, mut snapshot: Snapshot) -> Txn {
    let read = |key: &Key| view.get(key).ok().flatten();
    let mut batch = Batch::default();
    let waiting: Vec<Pod> = snapshot.pods().filter(|pod| pod.is_waiting()).cloned().collect();
    for pod in waiting {
        let Decision::Bind { node, gpus } = decide(&snapshot, &pod) else { continue };
        let key = pod.key.clone().expect("stored");
        let binding = Binding { pod: pod.clone(), node: node.clone(), gpus, index: None };
        if batch.add(&binding, &snapshot, &read, NOW) {
            snapshot.put_pod(&key, Pod { node, ..pod });
        }
    }
    batch.finish().0
}

/// Where each Pod is, and what is broken at this revision, given where they were.
async fn broken(replica: &Replica, places: &mut Vec<(String, String)>) -> Option<String> {
    let (_, snapshot) = look(replica).await;
    let now: Vec<(String, String)> =
        snapshot.pods().filter(|pod| !pod.node.is_empty()).map(|pod| (pod.uid.clone(), pod.node.clone())).collect();
    let moved = places.iter().find_map(|(uid, old)| {
        let (_, new) = now.iter().find(|(known, _)| known == uid)?;
        (new != old).then(|| format!("BoundOnce: {uid} was bound to {old} and then to {new}"))
    });
    // A node that has shrunk since holds what it was given; more must not come.
    let grown: Vec<&String> = now.iter().filter(|one| !places.contains(one)).map(|(_, node)| node).collect();
    let full = grown.into_iter().find_map(|name| {
        let (has, used) = (snapshot.node(name)?.allocatable.get("cpu")?, snapshot.ledger(name).requested.get("cpu")?);
        (used > has).then(|| format!("Capacity: {name} was given {used} of {has} thousandths of a CPU"))
    });
    *places = now;
    moved.or(full)
}

/// A scheduler has decided and stands still before it proposes. Meanwhile, by chance, nodes come, shrink or are filled, and another
/// scheduler leads and binds; then the first goes on. What is broken at any revision is told.
async fn interleaved(seed: u64) -> Option<String> {
    let mut chance = Chance(seed);
    let replica = Replica::memory(ReplicaId(1)).await;
    let nodes = 1 + chance.below(3);
    let mut ops: Vec<Op> =
        (0..nodes).map(|number| put(&key("nodes", &format!("n{number}")), node(400 + 200 * chance.below(4)))).collect();
    ops.extend(
        (0..3 + chance.below(5))
            .map(|number| put(&key("pods", &format!("p{number}")), pod(100 + 100 * chance.below(3)))),
    );
    assert!(propose(&replica, Txn::new(Vec::new(), ops)).await);
    let mut places = Vec::new();
    let (view, snapshot) = look(&replica).await;
    let paused = bindings(&view, snapshot);
    for _ in 0..1 + chance.below(3) {
        match chance.below(3) {
            // Another node, empty: whoever decides now decides otherwise.
            0 => {
                let name = format!("late{}", chance.below(100));
                propose(&replica, Txn::new(Vec::new(), vec![put(&key("nodes", &name), node(2_000))])).await;
            }
            1 => {
                let name = format!("n{}", chance.below(nodes));
                propose(&replica, Txn::new(Vec::new(), vec![put(&key("nodes", &name), node(100))])).await;
            }
            _ => {
                let (view, snapshot) = look(&replica).await;
                propose(&replica, bindings(&view, snapshot)).await;
            }
        }
        if let Some(broken) = broken(&replica, &mut places).await {
            return Some(broken);
        }
    }
    propose(&replica, paused).await;
    let broken = broken(&replica, &mut places).await;
    replica.shutdown().await;
    broken
}

async fn convicts(exhibit: Exhibit, name: &str, by: &str) {
    SHOWN.set(Some(exhibit));
    let mut convicted = None;
    for seed in 0..SEEDS {
        let found = interleaved(seed).await.filter(|found| found.starts_with(by));
        if let Some(found) = found {
            convicted = Some((seed, found));
            break;
        }
    }
    SHOWN.set(None);
    match &convicted {
        Some((seed, found)) => println!("convicted  {:<14} {name:<50} by seed {seed}: {found}", "product"),
        None => println!("SURVIVED   {:<14} {name:<50} seeds 0..{SEEDS}", "product"),
    }
    assert!(convicted.is_some(), "{name} survived");
}

/// Without a bug no interleaving breaks anything.
#[tokio::test]
async fn a_paused_scheduler_binds_nothing_twice_and_overfills_nothing() {
    for seed in 0..SEEDS {
        assert_eq!(interleaved(seed).await, None, "seed {seed}");
    }
}

/// A scheduler that stood still binds again what another has bound meanwhile.
#[tokio::test]
async fn double_binding_is_convicted() {
    convicts(Exhibit::PodUnguarded, "double binding by a paused scheduler", "BoundOnce").await;
}

/// Only who proposes looks at what a node offers, and the entry does not.
#[tokio::test]
async fn capacity_checked_by_the_proposer_is_convicted() {
    convicts(Exhibit::NodeUnguarded, "capacity checked only by the proposer", "Capacity").await;
}
