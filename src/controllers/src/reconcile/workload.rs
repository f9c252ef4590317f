//! Workloads: exactly `replicas` slots, index 0 upwards, each filled by one Pod.
//!
//! A slot's id outlives its Pods. A slot moves by a replacement Pod, unbound, that names the Pod it replaces; the
//! scheduler's bind makes the change-over in one transaction. What may stay on its node is never moved.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use quilt_objects::names;
use quilt_proto::Key;
use serde_json::{Value, json};

use crate::annotations::{
    GPU, GPU_IDS, LABELS, MESSAGE, NO_IMAGE, PLACEMENT_ID, REPLACES, REPLICA_INDEX, SPEC_HASH, WORKLOAD,
};
use crate::ending::end_pod;
use crate::fields;
use crate::object::{Object, Phase};
use crate::plan::{About, NoticeKind, Plan};
use crate::pods;
use crate::view::{LoadError, Occasion, Urgency, View};

/// One look at the Workload at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(mut workload) = view.load(key)? else { return Ok(plan) };
    let seen = view.cluster.get(key).is_some_and(|object| object.revision == workload.revision);
    if !seen || workload.value.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(plan);
    }
    let uid = fields::text(&workload.value, "/metadata/uid").to_owned();
    let replicas = fields::int(&workload.value, "/spec/replicas").unwrap_or_default().max(0);
    let mut filling = Filling {
        view,
        about: About::of("quilt.sh/v1", "Workload", &workload.value),
        hash: spec_hash(&workload.value),
        workload: &workload.value,
        live: HashMap::new(),
        by_placement: HashMap::new(),
        plan: &mut plan,
    };
    for pod in view.cluster.pods_of(&uid) {
        if pod.deletion.is_none() {
            filling.live.insert(pod.name().to_owned(), Arc::clone(pod));
            let placement = pod.annotation(PLACEMENT_ID).unwrap_or_default().to_owned();
            filling.by_placement.entry(placement).or_default().push(Arc::clone(pod));
        }
    }
    let mut slots: BTreeMap<i64, Slot> = fields::list(&workload.value, "/status/slots")
        .iter()
        .filter_map(Slot::read)
        .map(|slot| (slot.index, slot))
        .collect();
    // The highest indexes go first when there are too many.
    while let Some(surplus) = slots.last_entry().filter(|slot| *slot.key() >= replicas) {
        if filling.plan.is_full() {
            break;
        }
        let placement = surplus.get().placement_id.clone();
        filling.end_placement(&placement, at)?;
        surplus.remove();
    }
    filling.end_strays(&slots, at)?;
    for index in 0..replicas {
        if filling.plan.is_full() {
            break;
        }
        match slots.remove(&index) {
            Some(slot) => {
                let slot = filling.tend(slot, at)?;
                slots.insert(index, slot);
            }
            None => {
                if let Some(slot) = filling.open(index, at) {
                    slots.insert(index, slot);
                }
            }
        }
    }
    let status = status(&workload.value, &slots, &filling.live);
    if workload.value.get("status") == Some(&status) && !plan.makes_something() {
        if !plan.writes.is_empty() {
            plan.rely_on(key, workload.revision);
        }
    } else {
        fields::set(&mut workload.value, &["status"], status);
        plan.update(workload);
    }
    Ok(plan)
}

/// One slot of `status.slots`.
#[derive(Clone, Debug)]
struct Slot {
    index: i64,
    placement_id: String,
    pod_name: String,
}

impl Slot {
    fn read(value: &Value) -> Option<Self> {
        Some(Self {
            index: fields::int(value, "/index")?,
            placement_id: fields::text(value, "/placementId").to_owned(),
            pod_name: fields::text(value, "/podName").to_owned(),
        })
    }

    fn write(&self) -> Value {
        json!({ "index": self.index, "placementId": self.placement_id, "podName": self.pod_name })
    }
}

/// What Pods are made from: everything of the spec but how many.
fn spec_hash(workload: &Value) -> String {
    let mut spec = workload.get("spec").cloned().unwrap_or_default();
    fields::remove(&mut spec, &["replicas"]);
    pods::hash_of(&spec, None)
}

struct Filling<'a, 'v> {
    view: &'a View<'v>,
    about: About,
    hash: String,
    workload: &'a Value,
    /// Pods that are not going, by name.
    live: HashMap<String, Arc<Object>>,
    /// The same, by the placement they fill or wait to fill.
    by_placement: HashMap<String, Vec<Arc<Object>>>,
    plan: &'a mut Plan,
}

impl Filling<'_, '_> {
    fn pod_named(&self, name: &str) -> Option<Arc<Object>> {
        self.live.get(name).cloned()
    }

    fn is_current(&self, pod: &Object) -> bool {
        pod.annotation(SPEC_HASH) == Some(&self.hash)
    }

    /// A live Pod that waits to replace `uid`, or to fill the placement after it.
    fn replacement(&self, slot: &Slot) -> Option<Arc<Object>> {
        let pods = self.by_placement.get(&slot.placement_id);
        pods.into_iter().flatten().find(|pod| pod.name() != slot.pod_name).cloned()
    }

    fn end_placement(&mut self, placement: &str, at: &Occasion) -> Result<(), LoadError> {
        for pod in self.by_placement.remove(placement).unwrap_or_default() {
            end_pod(self.plan, self.view, &pod, at.now)?;
            let message = format!("Deleted pod: {}", pod.name());
            self.plan.tell(self.about.clone(), NoticeKind::Normal, "SuccessfulDelete", message);
        }
        Ok(())
    }

    /// Pods that fill no slot go.
    fn end_strays(&mut self, slots: &BTreeMap<i64, Slot>, at: &Occasion) -> Result<(), LoadError> {
        let known: HashSet<&str> = slots.values().map(|slot| slot.placement_id.as_str()).collect();
        let strays = self.by_placement.iter().filter(|(placement, _)| !known.contains(placement.as_str()));
        let mut strays: Vec<Arc<Object>> = strays.flat_map(|(_, pods)| pods).cloned().collect();
        strays.sort_by(|a, b| a.key.cmp(&b.key));
        for pod in strays {
            end_pod(self.plan, self.view, &pod, at.now)?;
        }
        Ok(())
    }

    /// A new slot and its first Pod.
    fn open(&mut self, index: i64, at: &mut Occasion) -> Option<Slot> {
        let mut slot = Slot { index, placement_id: at.entropy.uid(), pod_name: String::new() };
        slot.pod_name = self.make_pod(&slot, None, None, at)?;
        Some(slot)
    }

    /// Sees to it that `slot` is filled by a Pod of the present spec on a node that may keep it.
    fn tend(&mut self, mut slot: Slot, at: &mut Occasion) -> Result<Slot, LoadError> {
        let replacement = self.replacement(&slot);
        let Some(pod) = self.pod_named(&slot.pod_name) else {
            // Somebody removed the Pod: what waited to replace it fills the slot, else a new one does.
            match replacement {
                Some(replacement) => replacement.name().clone_into(&mut slot.pod_name),
                None => {
                    let message = format!("pod {} was removed", slot.pod_name);
                    if let Some(name) = self.make_pod(&slot, None, Some(&message), at) {
                        slot.pod_name = name;
                    }
                }
            }
            return Ok(slot);
        };
        let node = pod.pod().map(|facts| facts.node.clone()).unwrap_or_default();
        let gone = !node.is_empty() && self.view.cluster.node(&node).is_none();
        if gone || (node.is_empty() && !self.is_current(&pod)) {
            self.plan.delete(&pod.key, pod.revision);
            let message = gone.then(|| format!("node {node} was removed"));
            let waiting = replacement.filter(|replacement| self.is_current(replacement));
            let name = match waiting {
                Some(replacement) => Some(replacement.name().to_owned()),
                None => self.make_pod(&slot, None, message.as_deref(), at),
            };
            slot.pod_name = name.unwrap_or_default();
            return Ok(slot);
        }
        let cause = self.cause_to_move(&pod, &node, at);
        let waiting = replacement.filter(|replacement| replacement.pod().is_some_and(|facts| facts.node.is_empty()));
        match (cause, waiting) {
            (Some(cause), None) => {
                self.make_pod(&slot, Some(&pod.uid), Some(&cause), at);
            }
            (Some(cause), Some(waiting)) if !self.is_current(&waiting) => {
                self.plan.delete(&waiting.key, waiting.revision);
                self.make_pod(&slot, Some(&pod.uid), Some(&cause), at);
            }
            // The cause has passed and nothing was moved yet: nothing moves.
            (None, Some(waiting)) => self.plan.delete(&waiting.key, waiting.revision),
            (Some(_), Some(_)) | (None, None) => {}
        }
        Ok(slot)
    }

    /// Why `pod` may not stay as it is.
    fn cause_to_move(&mut self, pod: &Object, node: &str, at: &Occasion) -> Option<String> {
        let facts = self.view.cluster.node(node).and_then(|node| node.node());
        if let Some(facts) = facts {
            if facts.draining {
                return Some(format!("node {node} is draining"));
            }
            if let Some(since) = facts.away_since {
                let due = since.plus_secs(self.view.settings.placement_grace_secs);
                if due <= at.now || self.view.urgency == Urgency::Now {
                    return Some(format!("node {node} is not ready"));
                }
                self.plan.look_again(due);
            }
        }
        (!self.is_current(pod) && !node.is_empty()).then(|| "the workload's spec changed".to_owned())
    }

    fn make_pod(
        &mut self,
        slot: &Slot,
        replaces: Option<&str>,
        message: Option<&str>,
        at: &mut Occasion,
    ) -> Option<String> {
        let namespace = fields::text(self.workload, "/metadata/namespace");
        let base = fields::text(self.workload, "/metadata/name");
        let base = &base[..base.floor_char_boundary(57)];
        let name = format!("{}-{}", base.trim_end_matches(['-', '.']), at.entropy.suffix());
        let key = self.view.cluster.key("", "pods", namespace, &name)?;
        let owner = pods::controlled_by("quilt.sh/v1", "Workload", self.workload);
        let mut template = template(self.workload);
        for (annotation, value) in [
            (PLACEMENT_ID, Some(slot.placement_id.as_str())),
            (REPLICA_INDEX, Some(slot.index.to_string().as_str())),
            (SPEC_HASH, Some(self.hash.as_str())),
            (REPLACES, replaces),
            (MESSAGE, message),
        ] {
            if let Some(value) = value {
                fields::set(&mut template, &["metadata", "annotations", annotation], value);
            }
        }
        let pod = pods::from_template(&template, namespace, &name, &owner, self.view.settings, at);
        self.plan.create(key, pod);
        let message = format!("Created pod: {name}");
        self.plan.tell(self.about.clone(), NoticeKind::Normal, "SuccessfulCreate", message);
        Some(name)
    }
}

/// The Pod template a Workload stands for: one container `main` (quilt-api, section 6).
fn template(workload: &Value) -> Value {
    let spec = workload.get("spec").cloned().unwrap_or_default();
    let image = fields::text(&spec, "/image");
    let mut container = json!({
        "name": "main",
        "image": if image.is_empty() { NO_IMAGE } else { image },
        "imagePullPolicy": "IfNotPresent",
        "command": fields::list(&spec, "/command"),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "resources": {},
    });
    if let Some(environment) = fields::map(&spec, "/environment").filter(|environment| !environment.is_empty()) {
        let env: Vec<Value> = environment.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        fields::set(&mut container, &["env"], env);
    }
    let mut limits = serde_json::Map::new();
    if let Some(mebibytes) = fields::int(&spec, "/memory_limit_mb") {
        limits.insert("memory".into(), format!("{mebibytes}Mi").into());
    }
    if let Some(percent) = spec.get("cpu_limit_percent").and_then(Value::as_f64) {
        // 100 % is one CPU, so a tenth of a percent is one milli-CPU; validation keeps it positive and finite.
        limits.insert("cpu".into(), format!("{:.0}m", (percent * 10.0).ceil()).into());
    }
    let gpus = fields::int(&spec, "/gpu_count").unwrap_or_default();
    if gpus > 0 {
        limits.insert(GPU.into(), gpus.to_string().into());
    }
    if !limits.is_empty() {
        fields::set(&mut container, &["resources", "limits"], limits.clone());
        fields::set(&mut container, &["resources", "requests"], limits);
    }
    let mut labels = serde_json::Map::new();
    let mut others = serde_json::Map::new();
    for (name, value) in fields::map(&spec, "/labels").into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let valid = names::qualified_name(name).is_empty() && names::label_value(text).is_empty();
        let place = if valid && !name.starts_with("quilt.sh/") { &mut labels } else { &mut others };
        place.insert(name.clone(), value.clone());
    }
    labels.insert(WORKLOAD.into(), fields::text(workload, "/metadata/uid").into());
    let mut annotations = serde_json::Map::new();
    if !others.is_empty() {
        annotations.insert(LABELS.into(), Value::Object(others).to_string().into());
    }
    let gpu_ids: Vec<&str> = fields::list(&spec, "/gpu_ids").iter().filter_map(Value::as_str).collect();
    if !gpu_ids.is_empty() {
        annotations.insert(GPU_IDS.into(), gpu_ids.join(",").into());
    }
    json!({
        "metadata": { "labels": labels, "annotations": annotations },
        "spec": {
            "containers": [container], "serviceAccountName": "default",
            "preemptionPolicy": "PreemptLowerPriority", "priority": 0,
        },
    })
}

/// The Workload's status: slots, and what their Pods do.
fn status(workload: &Value, slots: &BTreeMap<i64, Slot>, live: &HashMap<String, Arc<Object>>) -> Value {
    let (mut pending, mut assigned, mut running, mut failed) = (0, 0, 0, 0);
    for slot in slots.values() {
        match live.get(&slot.pod_name).and_then(|pod| pod.pod()) {
            None => pending += 1,
            Some(facts) if facts.node.is_empty() => pending += 1,
            Some(facts) if facts.phase == Phase::Failed || facts.failing => failed += 1,
            Some(facts) if facts.phase == Phase::Running => running += 1,
            Some(facts) if facts.phase == Phase::Succeeded => {}
            Some(_) => assigned += 1,
        }
    }
    let mut status = json!({
        "replicas": slots.len(), "pending": pending, "assigned": assigned, "running": running, "failed": failed,
        "slots": slots.values().map(Slot::write).collect::<Vec<_>>(),
    });
    let generation = workload.pointer("/metadata/generation").cloned().unwrap_or_else(|| json!(1));
    fields::set(&mut status, &["observed_generation"], generation);
    status
}
