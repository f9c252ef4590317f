//! [`Call`]: one request under way, and the two ways it touches state: [`Call::read`] and [`Call::write`].
//!
//! Here, once, stands what the contract says about views: reads are linearizable; a write works from local state, adds
//! what it relied on to the transaction, and tries again on a fresh view when that failed; and no refusal that rests
//! on state leaves before it was repeated on a linearizable view. Must not know routes.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use quilt_proto::Compare;
use quilt_raft::{Consistency, Replica, View};
use tokio::time::Instant;

use super::envelope::Code;
use super::once::{Once, Settled};
use super::refuse;
use super::reply::Reply;
use crate::access::{self, Admitted};
use crate::authn::token::{self, JOIN_TOKEN_HEADER, JoinToken, NODE_TOKEN_HEADER, NodeToken};
use crate::authn::{Presented, Principal, Proof};
use crate::commit::{Done, Plan, Refusal, settle};
use crate::context::Api;
use crate::directory::{self, Entry};
use crate::identity::Identity;
use crate::problem::Problem;
use crate::query::DryRun;

/// One request under way.
pub(crate) struct Call<'a> {
    /// What all requests share.
    pub(crate) api: &'a Arc<Api>,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// When the client is told that there is no leader.
    pub(crate) deadline: Instant,
    /// Whether it asked for local state, however old.
    pub(crate) stale: bool,
    /// What makes it the same as another request, if it says so.
    pub(crate) once: Option<Once>,
}

impl Call<'_> {
    /// This replica.
    pub(crate) fn replica(&self) -> &Replica {
        &self.api.replica
    }

    /// Time left.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A linearizable view, or a local one if the request asked for that.
    pub(crate) async fn view(&self) -> Result<View, Problem> {
        let consistency = if self.stale { Consistency::Stale } else { Consistency::Linearizable };
        Ok(self.replica().read(consistency, self.remaining()).await?)
    }

    /// Judges the request on a linearizable view.
    pub(crate) async fn read<T>(&self, judge: impl Fn(&View) -> Result<T, Problem>) -> Result<T, Problem> {
        judge(&self.view().await?)
    }

    /// Judges on local state first, and again on a linearizable view before a refusal leaves. For requests whose
    /// success may rest on local state because whatever follows checks again.
    pub(crate) async fn judge<T>(&self, judge: impl Fn(&View) -> Result<T, Problem>) -> Result<T, Problem> {
        let local = self.replica().read(Consistency::Stale, self.remaining()).await?;
        match judge(&local) {
            Err(problem) if problem.rests_on_state() && !self.stale => self.read(judge).await,
            other => other,
        }
    }

    /// Plans on a view, commits, and plans again on a fresh one until the commit holds or the deadline is over. Nothing
    /// is planned for a request that was answered before.
    pub(crate) async fn write<T>(
        &self,
        mut plan: impl FnMut(&View) -> Result<Plan<T>, Problem>,
    ) -> Result<Done<T>, Problem> {
        let first = |view: &View| {
            self.once.as_ref().map_or(Ok(()), |once| once.must_be_first(view))?;
            plan(view)
        };
        self.write_plain(first).await
    }

    /// The plan with the answer it leads to, which a repetition of this request will get.
    pub(crate) fn keeping<T>(&self, plan: Plan<T>, reply: impl FnOnce(&T) -> Reply) -> Result<Plan<T>, Problem> {
        match &self.once {
            Some(once) => once.keeping(plan, Settled::Yes, reply),
            None => Ok(plan),
        }
    }

    /// As [`Call::keeping`], where the answer may show more by the time it is given.
    pub(crate) fn keeping_for_now<T>(
        &self,
        plan: Plan<T>,
        reply: impl FnOnce(&T) -> Reply,
    ) -> Result<Plan<T>, Problem> {
        match &self.once {
            Some(once) => once.keeping(plan, Settled::NotYet, reply),
            None => Ok(plan),
        }
    }

    /// As [`Call::write`], for a request that is not to be recognised.
    pub(crate) async fn write_plain<T>(
        &self,
        plan: impl FnMut(&View) -> Result<Plan<T>, Problem>,
    ) -> Result<Done<T>, Problem> {
        settle(self.replica(), self.deadline, DryRun::Off, plan, refuse::no_leader).await
    }

    /// The tenant of this request in `view`.
    pub(crate) fn tenant(&self, view: &View) -> Result<Tenant, Problem> {
        let presented = Presented::for_tenant(self.headers);
        let proof = presented.prove(view, |principal| matches!(principal, Principal::Tenant { .. }))?;
        match proof {
            Some(Proof { principal: Principal::Tenant { id }, compares }) => Ok(Tenant { id, compares }),
            _ => Err(refuse::unauthorized()),
        }
    }

    /// The tenant of this request and its cluster `id`.
    pub(crate) fn tenant_cluster(&self, view: &View, id: &str) -> Result<(Tenant, Entry), Problem> {
        let mut tenant = self.tenant(view)?;
        let entry = directory::find_owned(view, id, &tenant.id)?.ok_or_else(|| refuse::not_found("cluster"))?;
        tenant.compares.push(entry.exists());
        Ok((tenant, entry))
    }

    /// The operator of this request in `view`, as what a commit must recheck.
    pub(crate) fn operator(&self, view: &View) -> Result<Vec<Compare>, Problem> {
        let presented = Presented::for_admin(self.headers);
        let proof = presented.prove(view, |principal| *principal == Principal::Admin)?;
        proof.map(|proof| proof.compares).ok_or_else(refuse::unauthorized)
    }

    /// The cluster and the join token that opens it in `view`.
    pub(crate) fn joining(&self, view: &View, cluster: &str) -> Result<(Entry, JoinToken), Problem> {
        let digest = token::presented(self.headers, JOIN_TOKEN_HEADER).ok_or_else(refuse::unauthorized)?;
        let entry = directory::find(view, cluster)?.ok_or_else(refuse::unauthorized)?;
        let now = self.replica().cluster_time_ms();
        let token = token::join_token(view, cluster, &digest, now).map_err(dropped_is_unauthorized)?;
        Ok((entry, token.ok_or_else(refuse::unauthorized)?))
    }

    /// The cluster and the node whose token this request carries in `view`, which must be `node`.
    pub(crate) fn agent(&self, view: &View, cluster: &str, node: &str) -> Result<Agent, Problem> {
        let digest = token::presented(self.headers, NODE_TOKEN_HEADER).ok_or_else(refuse::unauthorized)?;
        let entry = directory::find(view, cluster)?.ok_or_else(refuse::unauthorized)?;
        let token = token::node_token(view, cluster, &digest).map_err(dropped_is_unauthorized)?;
        let token = token.filter(|token| token.node_id == node).ok_or_else(refuse::unauthorized)?;
        let stored = crate::store::NODES
            .get(view, cluster, "", &token.node_name)
            .map_err(dropped_is_unauthorized)?
            .filter(|stored| stored.uid() == node)
            .ok_or_else(refuse::unauthorized)?;
        Ok(Agent { entry, token, node: stored })
    }

    /// Refuses at once, without any state, what presents nothing at all.
    pub(crate) fn must_present(&self, presented: bool) -> Result<(), Problem> {
        if presented { Ok(()) } else { Err(refuse::unauthorized()) }
    }
}

fn dropped_is_unauthorized(error: quilt_raft::ReadError) -> Problem {
    match Problem::from(error) {
        problem if problem.envelope().code == Code::NotFound => refuse::unauthorized(),
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

impl Tenant {
    /// It, as the object layer knows it, in its cluster.
    pub(crate) fn admitted(self, entry: Entry) -> Admitted {
        let identity = access::identity(Principal::Tenant { id: self.id }, self.compares);
        Admitted { identity, cluster: entry.cluster }
    }
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

impl Agent {
    /// The control plane, writing what this agent reports: agents have no objects of their own.
    pub(crate) fn admitted(&self) -> Admitted {
        let guards = vec![self.token.compare.clone(), self.entry.exists()];
        Admitted { identity: Identity { guards, ..Identity::control_plane() }, cluster: self.entry.cluster.clone() }
    }
}
