//! `/api/clusters/{c}/workloads`: Quilt's own workloads, and projections of Kubernetes' owners of Pods.

use std::time::Duration;

use quilt_objects::kind::Kind;
use quilt_proto::{Key, KeyPrefix, Revision};
use quilt_raft::{Consistency, View};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::call::Call;
use super::envelope::Code;
use super::naming::{is_object_name, slug};
use super::objects::Target;
use super::projection::{Projection, own_workload, slots};
use super::refuse;
use super::reply::Reply;
use super::view::workload::Source;
use super::workload_spec::WorkloadSpec;
use crate::admission::Part;
use crate::authn::secret::fresh_id;
use crate::problem::Problem;
use crate::store::{PODS, Stored, WORKLOADS, kind_of, text};
use crate::verbs::delete::DeleteOptions;

/// Where Quilt's own workloads are made.
const NAMESPACE: &str = "default";
/// How long an answer waits for placements.
const PLACED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks, so that a burst of binds is one look.
const SETTLE: Duration = Duration::from_millis(10);

pub(crate) async fn list(call: &Call<'_>, cluster: &str) -> Result<Reply, Problem> {
    call.read(|view| {
        let (_, entry) = call.tenant_cluster(view, cluster)?;
        let workloads = Projection::of(view, &entry.cluster.id)?.workloads(cluster);
        Ok(Reply::ok(json!({"workloads": workloads})))
    })
    .await
}

pub(crate) async fn get(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Problem> {
    call.read(|view| {
        let (_, entry) = call.tenant_cluster(view, cluster)?;
        let shown = match own(view, &entry.cluster.id, id)? {
            Some(workload) => Some(own_workload(view, cluster, workload)?),
            None => Projection::of(view, &entry.cluster.id)?.workload(cluster, id),
        };
        shown.map(Reply::ok).ok_or_else(|| refuse::not_found("workload"))
    })
    .await
}

/// The Workload object with this id, unless it is on its way out.
fn own(view: &View, cluster: &str, id: &str) -> Result<Option<Stored>, Problem> {
    Ok(WORKLOADS.by_uid(view, cluster, id)?.filter(|workload| !workload.is_terminating()))
}

pub(crate) async fn create(call: &Call<'_>, cluster: &str, body: &Map<String, Value>) -> Result<Reply, Problem> {
    call.judge(|view| call.tenant(view)).await?;
    let spec = WorkloadSpec::read(body)?;
    let id = fresh_id();
    let written = call
        .write(|view| {
            let (tenant, entry) = call.tenant_cluster(view, cluster)?;
            spec.check()?;
            let name = free_name(view, &entry.cluster.id, spec.name(), &id)?;
            let key = WORKLOADS.key(cluster, NAMESPACE, &name).ok_or_else(|| refuse::internal("workload key"))?;
            let object = json!({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec.document()});
            let target = Target::new(call, tenant.admitted(entry), WORKLOADS.kind(), NAMESPACE, &name);
            let plan = target.create(view, object, &id)?.map(|value| Stored { key, value });
            call.keeping_for_now(plan, |made| Reply::created(Source::Own(made.clone()).render(cluster, &[])))
        })
        .await?;
    Ok(Reply::created(until_placed(call, cluster, written.answer, written.last).await))
}

/// `spec.name` if it can be and is free, else a name made from it and the id.
fn free_name(view: &View, cluster: &str, name: &str, id: &str) -> Result<String, Problem> {
    let is_free = is_object_name(name) && WORKLOADS.get(view, cluster, NAMESPACE, name)?.is_none();
    Ok(if is_free { name.into() } else { slug(name, id) })
}

pub(crate) async fn replace(
    call: &Call<'_>,
    cluster: &str,
    id: &str,
    body: &Map<String, Value>,
) -> Result<Reply, Problem> {
    call.judge(|view| call.tenant(view)).await?;
    let spec = WorkloadSpec::read(body)?;
    let written = call
        .write(|view| {
            let (tenant, entry) = call.tenant_cluster(view, cluster)?;
            let Some(workload) = own(view, &entry.cluster.id, id)? else {
                let projection = Projection::of(view, &entry.cluster.id)?;
                let source = projection.source(id).ok_or_else(|| refuse::not_found("workload"))?;
                spec.check()?;
                return Err(managed_by_kubernetes(source));
            };
            spec.check()?;
            let target =
                Target::new(call, tenant.admitted(entry), WORKLOADS.kind(), workload.namespace(), workload.name());
            let changed = |workload: &mut Value| {
                workload["spec"] = spec.document();
                Ok(())
            };
            Ok(target.update(view, Part::Main, changed)?.map(|value| Stored { key: workload.key, value }))
        })
        .await?;
    Ok(Reply::ok(until_placed(call, cluster, written.answer, written.last).await))
}

fn managed_by_kubernetes(source: &Source) -> Problem {
    let kind = match source {
        Source::Own(_) => "Workload",
        Source::Projected { kind, .. } | Source::Foreign { kind, .. } => kind,
    };
    refuse::with(Code::ManagedByKubernetes, format!("this workload is managed by a Kubernetes object of kind {kind}"))
        .hint("change the Kubernetes object instead")
}

pub(crate) async fn delete(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Problem> {
    call.write(|view| {
        let (tenant, entry) = call.tenant_cluster(view, cluster)?;
        let (kind, object) = match own(view, &entry.cluster.id, id)? {
            Some(workload) => (WORKLOADS.kind(), workload),
            None => match Projection::of(view, &entry.cluster.id)?.source(id) {
                None | Some(Source::Own(_)) => return Err(refuse::not_found("workload")),
                Some(source) => behind(view, &entry.cluster.id, source)?,
            },
        };
        let target = Target::new(call, tenant.admitted(entry), kind, object.namespace(), object.name());
        target.delete(view, &DeleteOptions::background(object.uid()))
    })
    .await?;
    Ok(Reply::success())
}

/// The Kubernetes object behind a projection, and its kind.
fn behind(view: &View, cluster: &str, source: &Source) -> Result<(&'static Kind, Stored), Problem> {
    let found = match source {
        Source::Own(object) => Some((WORKLOADS.kind(), object.clone())),
        Source::Projected { api_version, kind, object } => {
            kind_of(api_version, kind).map(|kind| (kind, object.clone()))
        }
        Source::Foreign { api_version, kind, namespace, name, uid, .. } => {
            let kind = kind_of(api_version, kind);
            let key = kind.and_then(|kind| {
                Key::new(cluster, &kind.storage_group, &kind.plural, namespace, name).ok().map(|key| (kind, key))
            });
            let record = key.map(|(kind, key)| view.get(&key).map(|record| (kind, key, record))).transpose()?;
            match record {
                Some((kind, key, Some(record))) => {
                    Some((kind, Stored::parse(key, &record)?)).filter(|(_, object)| object.uid() == uid)
                }
                _ => None,
            }
        }
    };
    found.ok_or_else(|| managed_by_kubernetes(source))
}

/// The workload as shown once every slot of its generation has a placement that is bound or known to be unschedulable
/// now, or the wait is over. It is committed: whatever keeps this replica from showing more, as it was written it can
/// be shown.
async fn until_placed(call: &Call<'_>, cluster: &str, workload: Stored, written: Option<Revision>) -> Value {
    match placed(call, cluster, &workload, written).await {
        Ok(Some(shown)) => shown,
        Ok(None) | Err(_) => Source::Own(workload).render(cluster, &[]),
    }
}

/// `None` when somebody deleted it meanwhile.
async fn placed(
    call: &Call<'_>,
    cluster: &str,
    workload: &Stored,
    written: Option<Revision>,
) -> Result<Option<Value>, Problem> {
    let key = &workload.key;
    let generation = workload.value["metadata"]["generation"].as_u64().unwrap_or(1);
    let until = call.deadline.min(Instant::now() + PLACED_WITHIN);
    let seen = written.map_or(Consistency::Stale, Consistency::AtLeast);
    let mut view = call.replica().read(seen, until.saturating_duration_since(Instant::now())).await?;
    let pods = KeyPrefix::namespace(cluster, "", "pods", workload.namespace()).map_err(refuse::internal)?;
    let mut workload_changes = call.replica().watch(KeyPrefix::exact(key), view.revision());
    let mut pod_changes = call.replica().watch(pods, view.revision());
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
        view = call.replica().read(Consistency::Stale, call.remaining()).await?;
    }
    let stored = view.get(key)?.map(|record| Stored::parse(key.clone(), &record)).transpose()?;
    let stored = stored.filter(|stored| stored.uid() == workload.uid());
    Ok(stored.map(|stored| own_workload(&view, cluster, stored)).transpose()?)
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
