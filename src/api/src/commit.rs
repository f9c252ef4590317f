//! The path of a write (architecture §3): plan on a local view, look again on a linearizable one before refusing,
//! propose as one compare-and-set, and plan again when another write came first.

use bytes::Bytes;
use quilt_proto::{Compare, Op, Revision, Txn};
use quilt_raft::{Decision, ProposeError, View};

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
pub(crate) struct Done<T> {
    /// From the plan that was carried out.
    pub(crate) answer: T,
    /// Revision of the change's first operation; `None` when nothing was stored.
    pub(crate) first: Option<Revision>,
}

/// Plans made for one request before it gives up to the writers it keeps losing against.
const PLANS_MAX: usize = 64;

/// Carries out what `plan` decides. It may be called several times, each time on a newer view.
pub(crate) async fn commit<T: Send>(
    call: &Call,
    dry_run: DryRun,
    mut plan: impl FnMut(&View, &Admitted) -> Result<Plan<T>, Problem> + Send,
) -> Result<Done<T>, Problem> {
    let started = tokio::time::Instant::now();
    let mut view = call.stale().await?;
    let mut linearizable = false;
    let mut was_invalid = false;
    for _ in 0..PLANS_MAX {
        let planned = call.admit(&view).and_then(|admitted| Ok((plan(&view, &admitted)?, admitted)));
        let (change, admitted) = match planned {
            Ok((Plan::Commit(change), admitted)) => (change, admitted),
            // Refusing, and claiming that nothing needs to change, both rest on this view alone.
            Ok((Plan::Unchanged(answer), _)) if linearizable => return Ok(Done { answer, first: None }),
            Err(problem) if linearizable || !problem.rests_on_state() => return Err(problem),
            Ok((Plan::Unchanged(_), _)) | Err(_) => {
                view = call.latest().await?;
                linearizable = true;
                continue;
            }
        };
        if dry_run == DryRun::All {
            if linearizable {
                return Ok(Done { answer: change.answer, first: None });
            }
            view = call.latest().await?;
            linearizable = true;
            continue;
        }
        let mut compares = admitted.identity.guards;
        compares.extend(change.compares);
        let left = call.deadline.saturating_sub(started.elapsed());
        match call.api.replica.propose(Txn::new(compares, change.ops), left).await {
            Ok(Decision::Applied { first, .. }) => return Ok(Done { answer: change.answer, first: Some(first) }),
            // Somebody else came first. What that means for this request is decided by planning again.
            Ok(Decision::Rejected { .. }) => {}
            // The cluster may have been deleted meanwhile, which a fresh view tells.
            Err(ProposeError::Invalid(_)) if !was_invalid => was_invalid = true,
            Err(error) => return Err(error.into()),
        }
        view = call.latest().await?;
        linearizable = true;
    }
    Err(Problem::conflict(call.kind, &call.name, "too many other writers changed it at the same time"))
}

/// A put of plain bytes into the control plane's own records.
pub(crate) fn put_plain(key: &quilt_proto::Key, value: &serde_json::Value) -> Op {
    Op::from(quilt_proto::Put {
        key: key.bytes().clone(),
        value: value.to_string().into(),
        splice_at: 0,
        sealed: Bytes::new(),
        ttl_ms: 0,
        tags: Vec::new(),
    })
}
