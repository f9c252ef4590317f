//! An exhibit of the bug museum: a controller that acts on what it saw a while ago, convicted by how many Pods there may be. The
//! switch is there in these tests only.

use std::cell::Cell;

use quilt_proto::{Compare, Key, compare};
use serde_json::json;

use super::{active, deployment, workload};
use crate::plan::Plan;
use crate::reconcile::Controller;
use crate::world::World;

/// How often the exhibit is tried, with another size and another moment each time.
const SEEDS: u64 = 12;

thread_local! {
    /// Whether a plan goes through whatever has become of what it was decided on.
    static STALE: Cell<bool> = const { Cell::new(false) };
}

/// Takes away what a plan rests on, if the bug is on show.
pub(crate) fn forget(compares: &mut Vec<Compare>) {
    if STALE.get() {
        compares.clear();
    }
}

/// Applies a plan if what it was decided on still stands, as the state machine does. Whether it did.
fn offer(world: &mut World, plan: &Plan) -> bool {
    let stands = plan.txn().compares.iter().all(|wanted| {
        let key = Key::from_bytes(wanted.key.clone()).expect("a key");
        let found = world.records.0.get(&key).map_or(0, |record| record.mod_revision);
        wanted.condition == Some(compare::Condition::ModRevision(found))
    });
    if stands {
        world.apply(plan);
    }
    stands
}

/// A controller decides and stands still; another one, of the next leader, does all there is to do; then what the first had
/// decided arrives. Says how many Pods there are if that is too many.
fn too_many(seed: u64) -> Option<(usize, i64)> {
    let mut world = World::new();
    world.node("n1");
    let replicas = 1 + i64::try_from(seed % 5).expect("small");
    let (controller, key) = if seed.is_multiple_of(2) {
        (Controller::Workload, workload(&mut world, replicas))
    } else {
        // As many as there are to be and no more, also while it changes over.
        let rolling = json!({"maxSurge": 0, "maxUnavailable": 1});
        let key = deployment(&mut world, replicas, "v1", &rolling);
        let plan = world.plan(Controller::Deployment, &key);
        world.apply(&plan);
        let (set, _) = world.all("apps", "replicasets").pop().expect("the deployment's");
        (Controller::ReplicaSet, set)
    };
    let decided = world.plan(controller, &key);
    let mut most = 0;
    world.settle_with(|world| most = most.max(active(world)));
    if seed.is_multiple_of(3) {
        world.run_pods("n1");
        world.settle();
    }
    if offer(&mut world, &decided) {
        most = most.max(active(&world));
    }
    (most > usize::try_from(replicas).expect("small")).then_some((most, replicas))
}

/// What was decided on an old state is rejected as a whole: there are never more Pods than there are to be.
#[test]
fn a_controller_that_stood_still_makes_nothing_twice() {
    for seed in 0..SEEDS {
        assert_eq!(too_many(seed), None, "seed {seed}");
    }
}

/// A plan that rests on nothing makes the Pods again that another has made meanwhile.
#[test]
fn a_stale_view_is_convicted() {
    const NAME: &str = "controller acting on a stale view";
    STALE.set(true);
    let convicted = (0..SEEDS).find_map(|seed| too_many(seed).map(|found| (seed, found)));
    STALE.set(false);
    match convicted {
        Some((seed, (pods, replicas))) => println!(
            "convicted  {:<14} {NAME:<50} by seed {seed}: Created: {pods} Pods where there are to be {replicas}",
            "product"
        ),
        None => println!("SURVIVED   {:<14} {NAME:<50} seeds 0..{SEEDS}", "product"),
    }
    assert!(convicted.is_some(), "{NAME} survived");
}
