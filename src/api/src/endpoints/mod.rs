//! Endpoints of the Service `default/kubernetes`: where the API is served, told to every cluster.
//!
//! Each replica records where its API is reached. The leader makes Endpoints and EndpointSlices of every cluster out of
//! the records, and forgets the record of a replica that is no member any more or has been silent for its lease. A lease
//! is renewed by what the replica answers the leader anyway, so an idle control plane writes nothing for it; a replica
//! that comes back records itself again. Must not know routes.

mod addresses;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use quilt_objects::kind::Kind;
use quilt_objects::place;
use quilt_proto::{Compare, Key, KeyPrefix, Op, ReplicaId};
use quilt_raft::{Consistency, Leadership, ReadError, View};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::addresses::Groups;
use crate::access::Admitted;
use crate::admission::Part;
use crate::authn::credential::tenant_range;
use crate::commit::{Plan, settle};
use crate::context::Api;
use crate::directory::Cluster;
use crate::identity::Identity;
use crate::problem::Problem;
use crate::query::DryRun;
use crate::request::Call;
use crate::store::{ENDPOINT_SLICES, SERVICES, Shelf, contains, put_record, record, text, visit};
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::{create, update};

/// The Service, and the namespace it is in.
const SERVICE: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// Where replicas record their addresses, in the tenant range.
const RECORDS: &str = "apiservers";
/// Who keeps a slice.
const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "apiserver.quilt.sh");

/// Silence after which a replica's address goes: some missed answers and an election, and with [`LOOK_EVERY`] and the
/// writes still within the 15 s that clients know of kube-apiserver.
const LEASE: Duration = Duration::from_secs(10);
/// Between two looks at the records and at who answers; both are in memory or local.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at objects that should not have changed, for whoever changed them.
const REPAIR_EVERY: Duration = Duration::from_secs(10);
/// How long one write may be held.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a replica that stops waits for its address to go; it goes with the lease otherwise.
const WITHDRAW_DEADLINE: Duration = Duration::from_secs(1);

/// Why the addresses could not be written; the next try may.
#[derive(Debug, thiserror::Error)]
#[error("the addresses of the API could not be kept")]
pub struct KeepError(#[source] Problem);

/// Advertises this replica, and keeps everybody's Endpoints while it leads, until `stop` completes; then withdraws.
pub async fn run(api: Arc<Api>, stop: impl Future<Output = ()> + Send) {
    tokio::pin!(stop);
    let mut keeper = Keeper::default();
    loop {
        tokio::select! {
            looked = keeper.look(&api) => if let Err(KeepError(cause)) = looked {
                tracing::debug!(%cause, "the addresses of the API are looked at again");
            },
            () = &mut stop => break,
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = &mut stop => break,
        }
    }
    if !api.replica.is_led() {
        return; // nobody would write that
    }
    if !matches!(tokio::time::timeout(WITHDRAW_DEADLINE, withdraw(&api, WITHDRAW_DEADLINE)).await, Ok(Ok(()))) {
        tracing::debug!("this replica's address goes with its lease");
    }
}

/// What the leader remembers between two looks.
#[derive(Default)]
struct Keeper {
    /// The term led here, and since when it is known.
    reign: Option<(u64, Instant)>,
    /// The addresses all objects showed, and when that was looked at.
    kept: Option<(Groups, Instant)>,
}

impl Keeper {
    async fn look(&mut self, api: &Arc<Api>) -> Result<(), KeepError> {
        let status = api.replica.status();
        if !status.ready {
            return Ok(());
        }
        advertise(api, WRITE_DEADLINE).await?;
        let Leadership::Leader(leader) = status.leadership else {
            *self = Self::default();
            return Ok(());
        };
        let known = self.reign.filter(|(term, _)| *term == leader.term);
        let (term, since) = known.unwrap_or_else(|| (leader.term, Instant::now()));
        if known.is_none() {
            *self = Self { reign: Some((term, since)), kept: None };
        }
        if status.members.is_empty() || status.membership_changing {
            return Ok(());
        }
        let heard = status.members.iter().map(|member| (member.id, member.last_contact_ms));
        let alive = living(heard, since.elapsed());
        forget(api, &alive, WRITE_DEADLINE).await?;
        let view = api.replica.read(Consistency::Stale, WRITE_DEADLINE).await.map_err(failed)?;
        let groups = groups(&view, |id| alive.contains(id)).map_err(failed)?;
        if self.kept.as_ref().is_some_and(|(kept, at)| *kept == groups && at.elapsed() < REPAIR_EVERY) {
            return Ok(());
        }
        reconcile(api, &groups, WRITE_DEADLINE).await?;
        self.kept = Some((groups, Instant::now()));
        Ok(())
    }
}

/// The members that have not been silent for [`LEASE`], by the names of their records. Silence is counted from the
/// beginning of this leadership at the earliest: before that, others were answered.
fn living(heard: impl Iterator<Item = (ReplicaId, Option<u64>)>, led_for: Duration) -> BTreeSet<String> {
    let silent = |last_contact_ms: Option<u64>| last_contact_ms.map_or(led_for, Duration::from_millis).min(led_for);
    heard.filter(|(_, contact)| silent(*contact) < LEASE).map(|(id, _)| id.0.to_string()).collect()
}

/// Records where this replica's API is reached. Nothing is written, and nobody is asked, when that is recorded already.
async fn advertise(api: &Api, deadline: Duration) -> Result<(), KeepError> {
    let (Some(address), Some(key)) = (api.options.advertise, own_key(api)) else { return Ok(()) };
    let wanted = json!({"address": address.to_string()});
    let local = api.replica.read(Consistency::Stale, deadline).await.map_err(failed)?;
    if record(&local, &key).map_err(failed)?.is_some_and(|(known, _)| known == wanted) {
        return Ok(());
    }
    let plan = |view: &View| {
        Ok(match record(view, &key)? {
            Some((known, _)) if known == wanted => Plan::Unchanged(()),
            Some((_, revision)) => Plan::commit(vec![Compare::at(&key, revision)], vec![put_record(&key, &wanted)], ()),
            None => Plan::commit(vec![Compare::absent(&key)], vec![put_record(&key, &wanted)], ()),
        })
    };
    write(api, deadline, plan).await
}

/// Takes this replica's address back.
async fn withdraw(api: &Api, deadline: Duration) -> Result<(), KeepError> {
    let (Some(_), Some(key)) = (api.options.advertise, own_key(api)) else { return Ok(()) };
    write(api, deadline, |_| Ok(Plan::commit(vec![], vec![Op::delete(&key)], ()))).await
}

fn own_key(api: &Api) -> Option<Key> {
    tenant_range(RECORDS, "", &api.replica.id().0.to_string())
}

/// Forgets the records of all but `alive`.
async fn forget(api: &Api, alive: &BTreeSet<String>, deadline: Duration) -> Result<(), KeepError> {
    let view = api.replica.read(Consistency::Stale, deadline).await.map_err(failed)?;
    let mut lapsed = Vec::new();
    each_record(&view, |key, _| {
        if !alive.contains(key.parts().name) {
            lapsed.push(key.clone());
        }
    })
    .map_err(failed)?;
    for key in lapsed {
        tracing::info!(replica = key.parts().name, "a replica is silent or has left: its address is withdrawn");
        write(api, deadline, |_| Ok(Plan::commit(vec![], vec![Op::delete(&key)], ()))).await?;
    }
    Ok(())
}

/// Brings the Endpoints and slices of every cluster in line with `groups`.
async fn reconcile(api: &Arc<Api>, groups: &Groups, deadline: Duration) -> Result<(), KeepError> {
    let view = api.replica.read(Consistency::Stale, deadline).await.map_err(failed)?;
    let documents = groups.documents();
    for cluster in clusters(&view).map_err(failed)? {
        for (shelf, name, document) in &documents {
            let stored = shelf.get(&view, &cluster.id, NAMESPACE, name);
            match stored {
                Ok(Some(stored)) if kept(&stored.value, document) == stored.value => {}
                // The cluster has gone meanwhile.
                Err(ReadError::Dropped) => {}
                Err(error) => return Err(failed(error)),
                Ok(_) => keep(api, &cluster, *shelf, name, document, deadline).await?,
            }
        }
        let slices = match ENDPOINT_SLICES.list(&view, &cluster.id, is_ours) {
            Err(ReadError::Dropped) => continue,
            slices => slices.map_err(failed)?,
        };
        let stale = slices
            .into_iter()
            .filter(|slice| slice.namespace() == NAMESPACE)
            .filter(|slice| place::text(&slice.value, &["metadata", "labels", MANAGED_BY.0]) == Some(MANAGED_BY.1))
            .filter(|slice| {
                !documents.iter().any(|(shelf, name, _)| *shelf == ENDPOINT_SLICES && name == slice.name())
            });
        for slice in stale {
            let (call, admitted) = target(api, &cluster, ENDPOINT_SLICES.kind(), slice.name());
            let options = DeleteOptions::background(slice.uid());
            let plan = |view: &View| Ok(delete::plan(&call, view, &admitted, &call.name, &options)?.map(drop));
            match write(api, deadline, plan).await {
                // Somebody else was faster.
                Err(KeepError(problem)) if problem.code() == 404 => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// Whether a record can be one of our slices, judged on its bytes.
fn is_ours(record: &quilt_proto::Record) -> bool {
    contains(&record.value, MANAGED_BY.1.as_bytes())
}

/// The objects a new cluster is born with: where, under which name, and what.
pub(crate) fn documents(view: &View) -> Result<Vec<(Shelf, String, Value)>, ReadError> {
    Ok(groups(view, |_| true)?.documents())
}

/// The recorded addresses of those that are `wanted`.
fn groups(view: &View, wanted: impl Fn(&str) -> bool) -> Result<Groups, ReadError> {
    let mut groups = Groups::default();
    each_record(view, |key, record| {
        if let Ok(address) = text(record, "/address").parse::<SocketAddr>()
            && wanted(key.parts().name)
        {
            groups.add(address);
        }
    })?;
    Ok(groups)
}

fn failed(error: ReadError) -> KeepError {
    KeepError(error.into())
}

async fn write(
    api: &Api,
    deadline: Duration,
    plan: impl FnMut(&View) -> Result<Plan<()>, Problem>,
) -> Result<(), KeepError> {
    let beaten = || Problem::unavailable("other writers came first every time");
    let done = settle(&api.replica, Instant::now() + deadline, DryRun::Off, plan, beaten).await;
    done.map(|_| ()).map_err(KeepError)
}

fn each_record(view: &View, mut each: impl FnMut(&Key, &Value)) -> Result<(), ReadError> {
    let Ok(prefix) = KeyPrefix::resource("", "quilt.sh", RECORDS) else { return Ok(()) };
    visit(view, &prefix, |key, record| {
        let value = serde_json::from_slice(&record.value)
            .map_err(|error| ReadError::Storage(format!("{key:?} is not a record: {error}")))?;
        each(key, &value);
        Ok(ControlFlow::Continue(()))
    })
}

fn clusters(view: &View) -> Result<Vec<Cluster>, ReadError> {
    let mut found = Vec::new();
    let Ok(prefix) = KeyPrefix::resource("", "quilt.sh", "clusters") else { return Ok(found) };
    visit(view, &prefix, |key, record| {
        let cluster = serde_json::from_slice(&record.value)
            .map_err(|error| ReadError::Storage(format!("{key:?} is not a cluster: {error}")))?;
        found.push(cluster);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

fn target(api: &Arc<Api>, cluster: &Cluster, kind: &'static Kind, name: &str) -> (Call, Admitted) {
    let call = Call::of_object(api, &cluster.id, kind, NAMESPACE, name);
    (call, Admitted { identity: Identity::control_plane(), cluster: cluster.clone() })
}

/// The object with what is wanted of it. Other people's labels and annotations stay.
fn kept(old: &Value, wanted: &Value) -> Value {
    let mut new = old.clone();
    for (field, value) in wanted.as_object().into_iter().flatten().filter(|(field, _)| *field != "metadata") {
        new[field] = value.clone();
    }
    for (label, value) in place::map(wanted, &["metadata", "labels"]).into_iter().flatten() {
        place::set(&mut new, &["metadata", "labels", label], value.clone());
    }
    new
}

/// Makes the object, or changes what it says of addresses.
async fn keep(
    api: &Arc<Api>,
    cluster: &Cluster,
    shelf: Shelf,
    name: &str,
    wanted: &Value,
    deadline: Duration,
) -> Result<(), KeepError> {
    let (call, admitted) = target(api, cluster, shelf.kind(), name);
    let plan = |view: &View| {
        // Nothing is behind a Service that somebody deleted, or in a cluster that is going.
        if SERVICES.get(view, &cluster.id, NAMESPACE, SERVICE)?.is_none_or(|service| service.is_terminating()) {
            return Ok(Plan::Unchanged(()));
        }
        let plan = if view.get(&call.key(name)?)?.is_some() {
            update::plan(&call, view, &admitted, Part::Main, &|old| Ok(kept(old, wanted)))?
        } else {
            create::plan(&call, view, &admitted, wanted, 1)?
        };
        Ok(plan.map(drop))
    };
    match write(api, deadline, plan).await {
        // The cluster has gone meanwhile.
        Err(KeepError(problem)) if problem.code() == 404 => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use quilt_proto::Txn;
    use quilt_raft::Replica;

    use super::addresses::SKIP_MIRROR;
    use super::*;
    use crate::authn::Digest;
    use crate::bootstrap::{ControlPlane, control_plane};
    use crate::context::{ApiOptions, RootKey};
    use crate::store::ENDPOINTS;

    const LONG: Duration = Duration::from_secs(10);

    async fn plane(address: &str) -> Arc<Api> {
        let replica = Replica::memory(ReplicaId(1)).await;
        let first = ControlPlane {
            admin_key: Digest::of("qa_x"),
            tenant_key: None,
            pod_cidr: "10.244.0.0/16".into(),
            serving_ca_pem: String::new(),
        };
        control_plane(&replica, &first, LONG).await.expect("bootstrap");
        let advertise = Some(address.parse().expect("an address"));
        Api::new(ApiOptions { advertise, ..ApiOptions::new("0.1.0", RootKey::new([7; 32])) }, replica)
    }

    /// The replica's address gets into Endpoints and slice, a repetition writes nothing, a changed address replaces
    /// the old one, the record of a replica that is no member is forgotten, and an orderly end withdraws the address.
    #[tokio::test]
    async fn addresses_of_members_are_kept() {
        let api = plane("192.0.2.1:6443").await;
        let former = tenant_range(RECORDS, "", "9").expect("key");
        let record = put_record(&former, &json!({"address": "192.0.2.9:6443"}));
        api.replica.propose(Txn::new(vec![], vec![record]), LONG).await.expect("proposed");
        let look = async |api: &Arc<Api>| {
            Keeper::default().look(api).await.expect("looked");
            api.replica.read(Consistency::Linearizable, LONG).await.expect("view")
        };
        let view = look(&api).await;
        assert!(view.get(&former).expect("read").is_none());
        let endpoints = |view: &View| ENDPOINTS.get(view, "default", NAMESPACE, SERVICE).expect("read").expect("made");
        let found = endpoints(&view);
        assert_eq!(
            found.value["subsets"],
            json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}]}])
        );
        assert_eq!(found.value["metadata"]["labels"][SKIP_MIRROR], "true");
        let slice = ENDPOINT_SLICES.get(&view, "default", NAMESPACE, SERVICE).expect("read").expect("made");
        assert_eq!(slice.value["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
        let before = view.revision();
        assert_eq!(look(&api).await.revision(), before, "nothing has changed");

        let options = ApiOptions {
            advertise: Some("192.0.2.2:7443".parse().expect("an address")),
            ..ApiOptions::new("0.1.0", RootKey::new([7; 32]))
        };
        let moved = Api::new(options, api.replica.clone());
        let view = look(&moved).await;
        assert_eq!(endpoints(&view).value["subsets"][0]["addresses"], json!([{"ip": "192.0.2.2"}]));
        assert_eq!(ENDPOINT_SLICES.list(&view, "default", |_| true).expect("read").len(), 1);

        run(moved, std::future::ready(())).await;
        let view = api.replica.read(Consistency::Linearizable, LONG).await.expect("view");
        assert_eq!(groups(&view, |_| true).expect("read"), Groups::default());
    }

    /// A member counts as silent from its last answer, from the election if it has given none since, and never from
    /// before the election.
    #[test]
    fn leases_end_after_silence() {
        let heard = [(1, Some(0)), (2, Some(9_999)), (3, Some(10_000)), (4, None)];
        let ids = |led_for| {
            let heard = heard.into_iter().map(|(id, contact)| (ReplicaId(id), contact));
            living(heard, Duration::from_secs(led_for)).into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!((ids(60), ids(9)), ("1 2".into(), "1 2 3 4".into()));
    }
}
