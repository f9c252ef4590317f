//! The path of a write (architecture §3): plan on a local view, look again on a linearizable one before refusing,
//! propose as one compare-and-set, and plan again when another write came first. Both surfaces write by it.

use std::time::Duration;

use quilt_proto::{Compare, Op, Revision, Txn};
use quilt_raft::{Consistency, Decision, ProposeError, ReadError, Replica, View};
use tokio::time::Instant;

use crate::access::Admitted;
use crate::problem::Problem;
use crate::query::DryRun;
use crate::request::Call;

/// What a write wants to do, decided on one view.
pub(crate) enum Plan<T> {
    /// Change something, if everything it relied on still holds.
    Commit(Change<T>),
    /// Nothing would change.
    Unchanged(T),
}

impl<T> Plan<T> {
    /// A change.
    pub(crate) const fn commit(compares: Vec<Compare>, ops: Vec<Op>, answer: T) -> Self {
        Self::Commit(Change { compares, ops, answer })
    }

    /// The same plan, relying on `compares` as well if it changes anything.
    pub(crate) fn relying_on(mut self, compares: Vec<Compare>) -> Self {
        if let Self::Commit(change) = &mut self {
            change.compares.extend(compares);
        }
        self
    }

    /// The same plan with more operations, if it changes anything.
    pub(crate) fn also(mut self, ops: Vec<Op>) -> Self {
        if let Self::Commit(change) = &mut self {
            change.ops.extend(ops);
        }
        self
    }

    /// The same plan with another answer.
    pub(crate) fn map<U>(self, answer: impl FnOnce(T) -> U) -> Plan<U> {
        match self {
            Self::Commit(change) => Plan::commit(change.compares, change.ops, answer(change.answer)),
            Self::Unchanged(old) => Plan::Unchanged(answer(old)),
        }
    }
}

/// A change and what to answer once it is committed.
pub(crate) struct Change<T> {
    /// What the plan relied on.
    pub(crate) compares: Vec<Compare>,
    /// What it does.
    pub(crate) ops: Vec<Op>,
    /// Kept for the answer.
    pub(crate) answer: T,
}

/// What became of a write.
#[derive(Debug)]
pub(crate) struct Done<T> {
    /// From the plan that was carried out.
    pub(crate) answer: T,
    /// Revision of the change's first operation; `None` when nothing was stored.
    pub(crate) first: Option<Revision>,
    /// Revision of its last operation: where all of it can be read.
    pub(crate) last: Option<Revision>,
}

impl<T> Done<T> {
    const fn unchanged(answer: T) -> Self {
        Self { answer, first: None, last: None }
    }
}

/// Why a plan was not carried out, in the words of its writer.
pub(crate) trait Refusal: From<ReadError> + From<ProposeError> {
    /// Whether another state could have led to another answer, so that it is given from a linearizable view only.
    fn rests_on_state(&self) -> bool {
        true
    }
}

/// Plans made for one request before it gives up to the writers it keeps losing against.
const PLANS_MAX: usize = 64;

/// A request whose time is over may look once more at what came first, for so long.
const LAST_LOOK: Duration = Duration::from_millis(250);

/// Carries out what `plan` decides for a request on a Kubernetes path.
pub(crate) async fn commit<T: Send>(
    call: &Call,
    dry_run: DryRun,
    mut plan: impl FnMut(&View, &Admitted) -> Result<Plan<T>, Problem> + Send,
) -> Result<Done<T>, Problem> {
    let until = Instant::now() + call.deadline;
    let admitted_plan = |view: &View| {
        let admitted = call.admit(view)?;
        let plan = plan(view, &admitted)?;
        Ok(plan.relying_on(admitted.identity.guards))
    };
    let beaten = || Problem::conflict(call.kind, &call.name, "too many other writers changed it at the same time");
    settle(&call.api.replica, until, dry_run, admitted_plan, beaten).await
}

/// Carries out what `plan` decides. It may be called several times, each time on a newer view; `beaten` is the answer
/// when other writers came first every time.
pub(crate) async fn settle<T, E: Refusal>(
    replica: &Replica,
    until: Instant,
    dry_run: DryRun,
    mut plan: impl FnMut(&View) -> Result<Plan<T>, E>,
    beaten: impl FnOnce() -> E,
) -> Result<Done<T>, E> {
    let left = || until.saturating_duration_since(Instant::now());
    let mut view = replica.read(Consistency::Stale, left()).await?;
    let mut linearizable = false;
    let mut was_invalid = false;
    for _ in 0..PLANS_MAX {
        match plan(&view) {
            Ok(Plan::Commit(change)) if dry_run == DryRun::All => {
                if linearizable {
                    return Ok(Done::unchanged(change.answer));
                }
            }
            Ok(Plan::Commit(change)) => match replica.propose(Txn::new(change.compares, change.ops), left()).await {
                Ok(Decision::Applied { first, last, .. }) => {
                    return Ok(Done { answer: change.answer, first: Some(first), last: Some(last) });
                }
                // Somebody else came first. What that means for this request is decided by planning again.
                Ok(Decision::Rejected { .. }) if left().is_zero() => break,
                Ok(Decision::Rejected { .. }) => {}
                // The cluster may have been deleted meanwhile, which a fresh view tells.
                Err(ProposeError::Invalid(_)) if !was_invalid => was_invalid = true,
                Err(error) => return Err(error.into()),
            },
            // Refusing, and claiming that nothing needs to change, both rest on this view alone.
            Ok(Plan::Unchanged(answer)) if linearizable => return Ok(Done::unchanged(answer)),
            Err(refusal) if linearizable || !refusal.rests_on_state() => return Err(refusal),
            Ok(Plan::Unchanged(_)) | Err(_) => {}
        }
        view = replica.read(Consistency::Linearizable, left()).await?;
        linearizable = true;
    }
    // There is no time, or no turn, for another attempt. What the others did may be an answer by itself all the same: the object is gone,
    // or there already. Nothing of this request was done, so that any refusal is exact.
    let Ok(view) = replica.read(Consistency::Linearizable, left().max(LAST_LOOK)).await else { return Err(beaten()) };
    match plan(&view) {
        Ok(Plan::Commit(_)) => Err(beaten()),
        Ok(Plan::Unchanged(answer)) => Ok(Done::unchanged(answer)),
        Err(refusal) => Err(refusal),
    }
}
