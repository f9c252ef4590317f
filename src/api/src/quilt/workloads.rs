//! `/api/clusters/{c}/workloads`: Quilt's own workloads, and projections of Kubernetes' owners of Pods.

use std::time::Duration;

use quilt_objects::registry::registry;
use quilt_proto::{Compare, Key, KeyPrefix, Op, Revision, Txn};
use quilt_raft::{Consistency, View};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::call::{Call, Step};
use super::envelope::{Code, Failure, Problem};
use super::marks;
use super::naming::{is_object_name, slug};
use super::projection::{Projection, own_workload, slots};
use super::reply::Reply;
use super::view::workload::Source;
use super::workload_spec::WorkloadSpec;
use crate::authn::secret::fresh_id;
use crate::store::{PODS, Stored, WORKLOADS, object, rfc3339, text};

/// Where Quilt's own workloads are made.
const NAMESPACE: &str = "default";
/// How long an answer waits for placements.
const PLACED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks, so that a burst of binds is one look.
const SETTLE: Duration = Duration::from_millis(10);

pub(crate) async fn list(call: &Call<'_>, cluster: &str) -> Result<Reply, Failure> {
    call.read(|view| {
        let (_, entry) = call.tenant_cluster(view, cluster)?;
        let workloads = Projection::of(view, &entry.cluster.id)?.workloads(cluster);
        Ok(Reply::ok(json!({"workloads": workloads})))
    })
    .await
}

pub(crate) async fn get(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Failure> {
    call.read(|view| {
        let (_, entry) = call.tenant_cluster(view, cluster)?;
        let shown = match own(view, &entry.cluster.id, id)? {
            Some(workload) => Some(own_workload(view, cluster, workload)?),
            None => Projection::of(view, &entry.cluster.id)?.workload(cluster, id),
        };
        shown.map(Reply::ok).ok_or_else(|| Problem::not_found("workload"))
    })
    .await
}

/// The Workload object with this id, unless it is on its way out.
fn own(view: &View, cluster: &str, id: &str) -> Result<Option<Stored>, Problem> {
    Ok(WORKLOADS.by_uid(view, cluster, id)?.filter(|workload| !workload.is_terminating()))
}

pub(crate) async fn create(call: &Call<'_>, cluster: &str, body: &Map<String, Value>) -> Result<Reply, Failure> {
    call.judge(|view| call.tenant(view)).await?;
    let spec = WorkloadSpec::read(body)?;
    let id = fresh_id();
    let now_ms = call.replica.wall_ms();
    let written = call
        .write(|view| {
            let (tenant, entry) = call.tenant_cluster(view, cluster)?;
            spec.check()?;
            let (name, key) = free_name(view, &entry.cluster.id, spec.name(), &id)?;
            let value = json!({
                "metadata": {
                    "name": name, "namespace": NAMESPACE, "uid": id, "generation": 1,
                    "creationTimestamp": rfc3339(now_ms),
                    "annotations": {marks::UPDATED_AT: (now_ms / 1000).to_string()},
                },
                "spec": spec.document(),
                "status": {"replicas": 0, "pending": 0, "assigned": 0, "running": 0, "failed": 0, "observed_generation": 0, "slots": []},
            });
            let mut compares = tenant.compares;
            compares.push(Compare::absent(&key));
            let ops = vec![crate::store::put(&key, &value)];
            Ok(Step::Commit(Txn::new(compares, ops), key))
        })
        .await?;
    let shown = until_placed(call, cluster, &id, &written.value, 1, written.revision).await?;
    Ok(Reply::created(shown))
}

/// `spec.name` if it can be and is free, else a name made from it and the id.
fn free_name(view: &View, cluster: &str, name: &str, id: &str) -> Result<(String, Key), Problem> {
    let key_of = |name: &str| WORKLOADS.key(cluster, NAMESPACE, name).ok_or_else(|| Problem::internal("workload key"));
    if is_object_name(name) {
        let key = key_of(name)?;
        if view.get(&key)?.is_none() {
            return Ok((name.into(), key));
        }
    }
    let name = slug(name, id);
    let key = key_of(&name)?;
    Ok((name, key))
}

pub(crate) async fn replace(
    call: &Call<'_>,
    cluster: &str,
    id: &str,
    body: &Map<String, Value>,
) -> Result<Reply, Failure> {
    call.judge(|view| call.tenant(view)).await?;
    let spec = WorkloadSpec::read(body)?;
    let now = call.replica.wall_ms() / 1000;
    let written = call
        .write(|view| {
            let (tenant, entry) = call.tenant_cluster(view, cluster)?;
            let Some(mut workload) = own(view, &entry.cluster.id, id)? else {
                return Err(match Projection::of(view, &entry.cluster.id)?.source(id) {
                    Some(source) => managed_by_kubernetes(source),
                    None => Problem::not_found("workload"),
                });
            };
            spec.check()?;
            let generation = workload.value["metadata"]["generation"].as_u64().unwrap_or(1);
            if workload.value["spec"] == spec.document() {
                return Ok(Step::Done((workload.key, generation)));
            }
            let unchanged = workload.unchanged();
            workload.value["spec"] = spec.document();
            workload.value["metadata"]["generation"] = json!(generation + 1);
            object(&mut workload.value["metadata"], "annotations")
                .insert(marks::UPDATED_AT.into(), json!(now.to_string()));
            let mut compares = tenant.compares;
            compares.push(unchanged);
            let txn = Txn::new(compares, vec![workload.put()]);
            Ok(Step::Commit(txn, (workload.key, generation + 1)))
        })
        .await?;
    let (key, generation) = written.value;
    Ok(Reply::ok(until_placed(call, cluster, id, &key, generation, written.revision).await?))
}

fn managed_by_kubernetes(source: &Source) -> Problem {
    let kind = match source {
        Source::Own(_) => "Workload",
        Source::Projected { kind, .. } | Source::Foreign { kind, .. } => kind,
    };
    Problem::new(Code::ManagedByKubernetes, format!("this workload is managed by a Kubernetes object of kind {kind}"))
        .hint("change the Kubernetes object instead")
}

pub(crate) async fn delete(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Failure> {
    let now_ms = call.replica.wall_ms();
    call.write(|view| {
        let (tenant, entry) = call.tenant_cluster(view, cluster)?;
        let cluster = &entry.cluster.id;
        let target = match own(view, cluster, id)? {
            Some(workload) => workload,
            None => match Projection::of(view, cluster)?.source(id) {
                None | Some(Source::Own(_)) => return Err(Problem::not_found("workload")),
                Some(Source::Projected { object, .. }) => object.clone(),
                Some(source @ Source::Foreign { api_version, kind, namespace, name, uid, .. }) => {
                    let object = foreign(view, cluster, api_version, kind, namespace, name)?;
                    object.filter(|object| object.uid() == uid).ok_or_else(|| managed_by_kubernetes(source))?
                }
            },
        };
        let mut compares = tenant.compares;
        compares.push(target.unchanged());
        Ok(Step::Commit(Txn::new(compares, vec![ending(target, now_ms)]), ()))
    })
    .await?;
    Ok(Reply::success())
}

/// The object behind an owner of a kind that is read by its name only.
fn foreign(
    view: &View,
    cluster: &str,
    api_version: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Stored>, Problem> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(kind) = registry().kind(group, version, kind) else { return Ok(None) };
    let Ok(key) = Key::new(cluster, &kind.storage_group, &kind.plural, namespace, name) else { return Ok(None) };
    Ok(view.get(&key)?.map(|record| Stored::parse(key, &record)).transpose()?)
}

/// Background deletion: gone at once, unless a finalizer or a node has still to act; then marked.
fn ending(mut target: Stored, now_ms: u64) -> Op {
    let is_pod = target.key.parts().resource == "pods" && target.key.parts().group.is_empty();
    let runs = is_pod
        && !target.text("/spec/nodeName").is_empty()
        && !matches!(target.text("/status/phase"), "Succeeded" | "Failed");
    let grace = target.value.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
    let grace = if runs { grace } else { 0 };
    if !target.has_finalizers() && grace == 0 {
        return Op::delete(&target.key);
    }
    if !target.is_terminating() {
        target.value["metadata"]["deletionTimestamp"] = json!(rfc3339(now_ms + grace * 1000));
        target.value["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    }
    target.put()
}

/// The workload as shown once every slot of `generation` has a placement that is bound or known to be unschedulable
/// now, or the wait is over.
async fn until_placed(
    call: &Call<'_>,
    cluster: &str,
    id: &str,
    key: &Key,
    generation: u64,
    revision: Revision,
) -> Result<Value, Failure> {
    let until = call.deadline.min(Instant::now() + PLACED_WITHIN);
    let seen = if revision == Revision::ZERO { Consistency::Stale } else { Consistency::AtLeast(revision) };
    let mut view = call.replica.read(seen, call.remaining()).await?;
    let pods = KeyPrefix::namespace(cluster, "", "pods", NAMESPACE).map_err(Problem::internal)?;
    let mut workload_changes = call.replica.watch(KeyPrefix::exact(key), view.revision());
    let mut pod_changes = call.replica.watch(pods, view.revision());
    while !is_placed(&view, cluster, key, generation)? {
        let changed = tokio::select! {
            changed = workload_changes.next() => changed.is_ok(),
            changed = pod_changes.next() => changed.is_ok(),
            () = tokio::time::sleep_until(until) => false,
        };
        if !changed || Instant::now() >= until {
            break;
        }
        tokio::time::sleep(SETTLE).await;
        view = call.replica.read(Consistency::Stale, call.remaining()).await?;
    }
    let stored = view.get(key)?.map(|record| Stored::parse(key.clone(), &record)).transpose()?;
    match stored.filter(|stored| stored.uid() == id) {
        Some(stored) => Ok(own_workload(&view, cluster, stored)?),
        // Deleted by someone else while this request waited: there is nothing left to show.
        None => Err(Problem::not_found("workload").into()),
    }
}

fn is_placed(view: &View, cluster: &str, key: &Key, generation: u64) -> Result<bool, Problem> {
    let Some(record) = view.get(key)? else { return Ok(true) };
    let workload = Stored::parse(key.clone(), &record)?;
    let observed = workload.value.pointer("/status/observed_generation").and_then(Value::as_u64).unwrap_or(0);
    let wanted = workload.value.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(0);
    if observed < generation || slots(&workload).count() as u64 != wanted {
        return Ok(false);
    }
    for slot in slots(&workload) {
        let pod = PODS.get(view, cluster, workload.namespace(), slot.pod_name)?;
        if !pod.is_some_and(|pod| is_decided(&pod.value)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bound, or known to be unschedulable now.
fn is_decided(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let refused = |condition: &Value| {
        condition["type"] == "PodScheduled" && condition["status"] == "False" && condition["reason"] == "Unschedulable"
    };
    !text(pod, "/spec/nodeName").is_empty() || conditions.into_iter().any(refused)
}
