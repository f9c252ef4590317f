//! Endpoints of the Service `default/kubernetes`: where the API is served, told to every cluster.
//!
//! Each replica records where its API is reached; the leader makes Endpoints and EndpointSlices out of the records of
//! the members, and forgets the records of those that are members no longer. Whoever runs it decides when. Must not
//! know routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use quilt_objects::kind::Kind;
use quilt_objects::place;
use quilt_proto::{Compare, Key, KeyPrefix, Op};
use quilt_raft::{Consistency, ReadError, View};
use serde_json::{Value, json};
use tokio::time::Instant;

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
use crate::store::{ENDPOINT_SLICES, ENDPOINTS, SERVICES, Shelf, put_record, record, text, visit};
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::{create, update};

/// The Service, and the namespace it is in.
const SERVICE: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// Where replicas record their addresses, in the tenant range.
const RECORDS: &str = "apiservers";
/// Says that no controller is to make slices out of the Endpoints.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who keeps a slice.
const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "apiserver.quilt.sh");

/// Why the addresses could not be written; the next try may.
#[derive(Debug, thiserror::Error)]
#[error("the addresses of the API could not be kept")]
pub struct KeepError(#[source] Problem);

/// Records where this replica's API is reached. Nothing is written when that is recorded already.
///
/// # Errors
/// [`KeepError`].
pub async fn advertise(api: &Api, deadline: Duration) -> Result<(), KeepError> {
    let Some(address) = api.options.advertise else { return Ok(()) };
    let Some(key) = tenant_range(RECORDS, "", &api.replica.id().0.to_string()) else { return Ok(()) };
    let wanted = json!({"address": address.to_string()});
    let plan = |view: &View| {
        Ok(match record(view, &key)? {
            Some((known, _)) if known == wanted => Plan::Unchanged(()),
            Some((_, revision)) => Plan::commit(vec![Compare::at(&key, revision)], vec![put_record(&key, &wanted)], ()),
            None => Plan::commit(vec![Compare::absent(&key)], vec![put_record(&key, &wanted)], ()),
        })
    };
    write(api, deadline, plan).await
}

/// Brings the Endpoints and slices of every cluster in line with the members' records. To be called by the leader.
///
/// # Errors
/// [`KeepError`]; what was not done is done by the next call.
pub async fn reconcile(api: &Arc<Api>, deadline: Duration) -> Result<(), KeepError> {
    let status = api.replica.status();
    let members: BTreeSet<String> = status.members.iter().map(|member| member.id.0.to_string()).collect();
    if members.is_empty() || status.membership_changing {
        return Ok(());
    }
    let view = api.replica.read(Consistency::Linearizable, deadline).await.map_err(failed)?;
    for key in strangers(&view, &members).map_err(failed)? {
        write(api, deadline, |_| Ok(Plan::commit(vec![], vec![Op::delete(&key)], ()))).await?;
    }
    let groups = Groups::read(&view, |id| members.contains(id)).map_err(failed)?;
    for cluster in clusters(&view).map_err(failed)? {
        let documents = groups.documents();
        for (shelf, name, document) in &documents {
            keep(api, &cluster, *shelf, name, document, deadline).await?;
        }
        let stale = ENDPOINT_SLICES
            .list(&view, &cluster.id, |_| true)
            .map_err(failed)?
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

/// The objects a new cluster is born with: where, under which name, and what.
pub(crate) fn documents(view: &View) -> Result<Vec<(Shelf, String, Value)>, ReadError> {
    Ok(Groups::read(view, |_| true)?.documents())
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

/// Records of replicas that are no members.
fn strangers(view: &View, members: &BTreeSet<String>) -> Result<Vec<Key>, ReadError> {
    let mut found = Vec::new();
    each_record(view, |key, _| {
        if !members.contains(key.parts().name) {
            found.push(key.clone());
        }
    })?;
    Ok(found)
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

/// Makes the object, or changes what it says of addresses. Other people's labels and annotations stay.
async fn keep(
    api: &Arc<Api>,
    cluster: &Cluster,
    shelf: Shelf,
    name: &str,
    wanted: &Value,
    deadline: Duration,
) -> Result<(), KeepError> {
    let (call, admitted) = target(api, cluster, shelf.kind(), name);
    let kept = |old: &Value| {
        let mut new = old.clone();
        for (field, value) in wanted.as_object().into_iter().flatten().filter(|(field, _)| *field != "metadata") {
            new[field] = value.clone();
        }
        for (label, value) in place::map(wanted, &["metadata", "labels"]).into_iter().flatten() {
            place::set(&mut new, &["metadata", "labels", label], value.clone());
        }
        Ok(new)
    };
    let plan = |view: &View| {
        // Nothing is behind a Service that somebody deleted, or in a cluster that is going.
        if SERVICES.get(view, &cluster.id, NAMESPACE, SERVICE)?.is_none_or(|service| service.is_terminating()) {
            return Ok(Plan::Unchanged(()));
        }
        let plan = if view.get(&call.key(name)?)?.is_some() {
            update::plan(&call, view, &admitted, Part::Main, &kept)?
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

/// Addresses by what can stand in one slice: a family and a port.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups(BTreeMap<(bool, u16), BTreeSet<IpAddr>>);

impl Groups {
    fn read(view: &View, wanted: impl Fn(&str) -> bool) -> Result<Self, ReadError> {
        let mut groups = Self::default();
        each_record(view, |key, record| {
            if let Ok(address) = text(record, "/address").parse::<SocketAddr>()
                && wanted(key.parts().name)
            {
                groups.add(address);
            }
        })?;
        Ok(groups)
    }

    fn add(&mut self, address: SocketAddr) {
        self.0.entry((address.is_ipv6(), address.port())).or_default().insert(address.ip());
    }

    /// The Endpoints and the slices. Replicas that listen on one port, as is usual, make one slice, named as upstream
    /// names it.
    fn documents(&self) -> Vec<(Shelf, String, Value)> {
        let subsets: Vec<Value> = self
            .0
            .iter()
            .map(|((_, port), addresses)| {
                let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
                json!({"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
            })
            .collect();
        let endpoints = json!({
            "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": {SKIP_MIRROR: "true"}},
            "subsets": subsets,
        });
        let slices = self.0.iter().enumerate().map(|(index, ((is_ipv6, port), addresses))| {
            let (family, letter) = if *is_ipv6 { ("IPv6", "v6-") } else { ("IPv4", "") };
            let name = if index == 0 { SERVICE.to_owned() } else { format!("{SERVICE}-{letter}{port}") };
            let endpoints: Vec<Value> = addresses
                .iter()
                .map(|ip| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}}))
                .collect();
            let document = json!({
                "metadata": {"name": name, "namespace": NAMESPACE,
                    "labels": {SERVICE_NAME: SERVICE, MANAGED_BY.0: MANAGED_BY.1}},
                "addressType": family,
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
                "endpoints": endpoints,
            });
            (ENDPOINT_SLICES, name, document)
        });
        let endpoints = (ENDPOINTS, SERVICE.to_owned(), endpoints);
        std::iter::once(endpoints).chain(slices).filter(|_| !self.0.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use quilt_proto::{ReplicaId, Txn};
    use quilt_raft::Replica;

    use super::*;
    use crate::authn::Digest;
    use crate::bootstrap::{ControlPlane, control_plane};
    use crate::context::{ApiOptions, RootKey};

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
    /// the old one, and the record of a replica that is no member is forgotten.
    #[tokio::test]
    async fn addresses_of_members_are_kept() {
        let api = plane("192.0.2.1:6443").await;
        let former = tenant_range(RECORDS, "", "9").expect("key");
        let record = put_record(&former, &json!({"address": "192.0.2.9:6443"}));
        api.replica.propose(Txn::new(vec![], vec![record]), LONG).await.expect("proposed");
        let keep = async |api: &Arc<Api>| {
            advertise(api, LONG).await.expect("advertised");
            reconcile(api, LONG).await.expect("reconciled");
            api.replica.read(Consistency::Linearizable, LONG).await.expect("view")
        };
        let view = keep(&api).await;
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
        assert_eq!(keep(&api).await.revision(), before, "nothing has changed");

        let options = ApiOptions {
            advertise: Some("192.0.2.2:7443".parse().expect("an address")),
            ..ApiOptions::new("0.1.0", RootKey::new([7; 32]))
        };
        let moved = Api::new(options, api.replica.clone());
        let view = keep(&moved).await;
        assert_eq!(endpoints(&view).value["subsets"][0]["addresses"], json!([{"ip": "192.0.2.2"}]));
        assert_eq!(ENDPOINT_SLICES.list(&view, "default", |_| true).expect("read").len(), 1);
    }

    /// One slice for a port and family, the first with the Service's own name; no address, no objects.
    #[test]
    fn addresses_are_grouped() {
        let mut groups = Groups::default();
        assert_eq!(groups.documents(), []);
        for address in ["127.0.0.1:7002", "127.0.0.1:7001", "192.0.2.1:7001", "[::1]:7001"] {
            groups.add(address.parse().expect("an address"));
        }
        let documents = groups.documents();
        let names: Vec<&str> = documents.iter().map(|(_, name, _)| name.as_str()).collect();
        assert_eq!(names, ["kubernetes", "kubernetes", "kubernetes-7002", "kubernetes-v6-7001"]);
        assert_eq!(documents[0].2["subsets"].as_array().map(Vec::len), Some(3));
        assert_eq!(documents[1].2["endpoints"].as_array().map(Vec::len), Some(2));
    }
}
