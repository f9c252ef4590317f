//! [`Call`]: one request under way, and the two ways it touches state: [`Call::read`] and [`Call::write`].
//!
//! Here, once, stands what the contract says about views: reads are linearizable; a write works from local state, adds
//! what it relied on to the transaction, and tries again on a fresh view when that failed; and no refusal that rests
//! on state leaves before it was repeated on a linearizable view. Must not know routes.

use std::time::Duration;

use http::HeaderMap;
use quilt_proto::state::op;
use quilt_proto::{Compare, Op, Revision, Txn};
use quilt_raft::{Consistency, Decision, ProposeError, Replica, View};
use tokio::time::Instant;

use super::envelope::{Code, Failure, Problem};
use crate::authn::token::{self, JOIN_TOKEN_HEADER, JoinToken, NODE_TOKEN_HEADER, NodeToken};
use crate::authn::{Presented, Principal};
use crate::directory::{self, Entry};
use crate::records::OBJECT_BYTES_MAX;

/// What a write found to do.
pub(crate) enum Step<T> {
    /// Nothing: the state is as asked for.
    Done(T),
    /// A transaction, and the answer for when it has been applied.
    Commit(Txn, T),
}

impl<T> Step<T> {
    /// Refuses what could not be stored: an object over the limit.
    fn fitting(self) -> Result<Self, Problem> {
        let size = |op: &Op| match &op.kind {
            Some(op::Kind::Put(put)) => put.value.len() + put.sealed.len(),
            _ => 0,
        };
        let Self::Commit(txn, _) = &self else { return Ok(self) };
        match txn.ops.iter().map(size).max() {
            Some(bytes) if bytes > OBJECT_BYTES_MAX => {
                Err(Problem::too_large("the object as stored", "body", OBJECT_BYTES_MAX, bytes.into()))
            }
            _ => Ok(self),
        }
    }
}

/// A finished write.
pub(crate) struct Written<T> {
    /// Its answer.
    pub(crate) value: T,
    /// The revision at which it is visible; zero when nothing was written.
    pub(crate) revision: Revision,
}

/// One request under way.
pub(crate) struct Call<'a> {
    /// This replica.
    pub(crate) replica: &'a Replica,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// When the client is told that there is no leader.
    pub(crate) deadline: Instant,
    /// Whether it asked for local state, however old.
    pub(crate) stale: bool,
}

impl Call<'_> {
    /// Time left.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A linearizable view, or a local one if the request asked for that.
    pub(crate) async fn view(&self) -> Result<View, Failure> {
        let consistency = if self.stale { Consistency::Stale } else { Consistency::Linearizable };
        Ok(self.replica.read(consistency, self.remaining()).await?)
    }

    /// Judges the request on a linearizable view.
    pub(crate) async fn read<T>(&self, judge: impl Fn(&View) -> Result<T, Problem>) -> Result<T, Failure> {
        Ok(judge(&self.view().await?)?)
    }

    /// Judges on local state first, and again on a linearizable view before a refusal leaves. For requests whose
    /// success may rest on local state because whatever follows checks again.
    pub(crate) async fn judge<T>(&self, judge: impl Fn(&View) -> Result<T, Problem>) -> Result<T, Failure> {
        let local = self.replica.read(Consistency::Stale, self.remaining()).await?;
        match judge(&local) {
            Err(problem) if problem.rests_on_state() && !self.stale => self.read(judge).await,
            other => Ok(other?),
        }
    }

    /// Plans on a view, commits, and plans again on a fresh one until the commit holds or the deadline is over.
    pub(crate) async fn write<T>(
        &self,
        plan: impl Fn(&View) -> Result<Step<T>, Problem>,
    ) -> Result<Written<T>, Failure> {
        let mut view = self.replica.read(Consistency::Stale, self.remaining()).await?;
        let mut linearizable = false;
        let mut was_invalid = false;
        loop {
            match plan(&view).and_then(Step::fitting) {
                Ok(Step::Commit(txn, value)) => match self.replica.propose(txn, self.remaining()).await {
                    Ok(Decision::Applied { last, .. }) => return Ok(Written { value, revision: last }),
                    Ok(Decision::Rejected { .. }) if self.remaining().is_zero() => {
                        return Err(Problem::no_leader().into());
                    }
                    Ok(Decision::Rejected { .. }) => {}
                    // Its cluster may be gone. A fresh view, which no longer names the cluster then, has the answer
                    // that fits the route; what is invalid there too is a defect.
                    Err(ProposeError::Invalid(_)) if !was_invalid => was_invalid = true,
                    Err(error) => return Err(error.into()),
                },
                Ok(Step::Done(value)) if linearizable => return Ok(Written { value, revision: Revision::ZERO }),
                Err(problem) if linearizable || !problem.rests_on_state() => return Err(problem.into()),
                Ok(Step::Done(_)) | Err(_) => {}
            }
            view = self.replica.read(Consistency::Linearizable, self.remaining()).await?;
            linearizable = true;
        }
    }

    /// The tenant of this request in `view`.
    pub(crate) fn tenant(&self, view: &View) -> Result<Tenant, Problem> {
        let presented = Presented::for_tenant(self.headers);
        let proof = presented.prove(view, |principal| matches!(principal, Principal::Tenant { .. }))?;
        match proof {
            Some(proof) => match proof.principal {
                Principal::Tenant { id } => Ok(Tenant { id, compares: proof.compares }),
                Principal::Admin => Err(Problem::unauthorized()),
            },
            None => Err(Problem::unauthorized()),
        }
    }

    /// The tenant of this request and its cluster `id`.
    pub(crate) fn tenant_cluster(&self, view: &View, id: &str) -> Result<(Tenant, Entry), Problem> {
        let mut tenant = self.tenant(view)?;
        let entry = directory::find_owned(view, id, &tenant.id)?.ok_or_else(|| Problem::not_found("cluster"))?;
        tenant.compares.push(entry.exists());
        Ok((tenant, entry))
    }

    /// The operator of this request in `view`, as what a commit must recheck.
    pub(crate) fn operator(&self, view: &View) -> Result<Vec<Compare>, Problem> {
        let presented = Presented::for_admin(self.headers);
        let proof = presented.prove(view, |principal| *principal == Principal::Admin)?;
        proof.map(|proof| proof.compares).ok_or_else(Problem::unauthorized)
    }

    /// The cluster and the join token that opens it in `view`.
    pub(crate) fn joining(&self, view: &View, cluster: &str) -> Result<(Entry, JoinToken), Problem> {
        let digest = token::presented(self.headers, JOIN_TOKEN_HEADER).ok_or_else(Problem::unauthorized)?;
        let entry = directory::find(view, cluster)?.ok_or_else(Problem::unauthorized)?;
        let now = self.replica.cluster_time_ms();
        let token = token::join_token(view, cluster, &digest, now).map_err(dropped_is_unauthorized)?;
        Ok((entry, token.ok_or_else(Problem::unauthorized)?))
    }

    /// The cluster and the node whose token this request carries in `view`, which must be `node`.
    pub(crate) fn agent(&self, view: &View, cluster: &str, node: &str) -> Result<Agent, Problem> {
        let digest = token::presented(self.headers, NODE_TOKEN_HEADER).ok_or_else(Problem::unauthorized)?;
        let entry = directory::find(view, cluster)?.ok_or_else(Problem::unauthorized)?;
        let token = token::node_token(view, cluster, &digest).map_err(dropped_is_unauthorized)?;
        let token = token.filter(|token| token.node_id == node).ok_or_else(Problem::unauthorized)?;
        let stored = crate::store::NODES
            .get(view, cluster, "", &token.node_name)
            .map_err(dropped_is_unauthorized)?
            .filter(|stored| stored.uid() == node)
            .ok_or_else(Problem::unauthorized)?;
        Ok(Agent { entry, token, node: stored })
    }

    /// Refuses at once, without any state, what presents nothing at all.
    pub(crate) fn must_present(&self, presented: bool) -> Result<(), Problem> {
        if presented { Ok(()) } else { Err(Problem::unauthorized()) }
    }
}

fn dropped_is_unauthorized(error: quilt_raft::ReadError) -> Problem {
    match Problem::from(error) {
        problem if problem.code == Code::NotFound => Problem::unauthorized(),
        problem => problem,
    }
}

/// A tenant that proved itself.
pub(crate) struct Tenant {
    /// Its id.
    pub(crate) id: String,
    /// What a commit must recheck: key, tenant, and the cluster if one was named.
    pub(crate) compares: Vec<Compare>,
}

/// An agent that proved itself.
pub(crate) struct Agent {
    /// Its cluster.
    pub(crate) entry: Entry,
    /// Its token.
    pub(crate) token: NodeToken,
    /// Its Node object.
    pub(crate) node: crate::store::Stored,
}
