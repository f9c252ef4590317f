//! Deployments: one `ReplicaSet` per template, rolled over within `maxSurge` and `maxUnavailable`.
//!
//! Every plan stands on the versions of all the Deployment's `ReplicaSets`. Pods are counted as the larger of what a set
//! asks for and what still lives of it, so that never more than `replicas + maxSurge` are asked for, even while a
//! set's surplus is still going.

use std::cmp::Reverse;

use quilt_objects::select::LabelSelector;
use quilt_proto::Key;
use serde_json::{Value, json};

use crate::fields;
use crate::moment::Moment;
use crate::object::{Object, Phase, label_selector};
use crate::plan::{About, NoticeKind, Plan};
use crate::pods;
use crate::view::{LoadError, Loaded, Occasion, View};

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One `ReplicaSet` of the Deployment, as loaded and as it is to be.
struct Set {
    loaded: Loaded,
    changed: bool,
    /// Active Pods that live now.
    live: i64,
}

impl Set {
    fn replicas(&self) -> i64 {
        fields::int(&self.loaded.value, "/spec/replicas").unwrap_or(1)
    }

    fn available(&self) -> i64 {
        fields::int(&self.loaded.value, "/status/availableReplicas").unwrap_or_default().min(self.replicas())
    }

    /// Pods that exist or may come to exist at any moment.
    fn possible(&self) -> i64 {
        self.replicas().max(self.live)
    }

    fn name(&self) -> String {
        fields::text(&self.loaded.value, "/metadata/name").to_owned()
    }

    fn revision(&self) -> i64 {
        annotation(&self.loaded.value, REVISION).parse().unwrap_or_default()
    }

    fn count(&self, field: &str) -> i64 {
        fields::int(&self.loaded.value, &format!("/status/{field}")).unwrap_or_default()
    }
}

fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    fields::map(object, "/metadata/annotations")
        .and_then(|annotations| annotations.get(name)?.as_str())
        .unwrap_or_default()
}

/// What the Deployment asks for.
struct Wanted {
    replicas: i64,
    surge: i64,
    unavailable: i64,
    recreate: bool,
}

impl Wanted {
    fn of(deployment: &Value) -> Self {
        let replicas = fields::int(deployment, "/spec/replicas").unwrap_or(1).max(0);
        let recreate = fields::text(deployment, "/spec/strategy/type") == "Recreate";
        let part = |name: &str, up: bool| {
            let value = deployment.pointer(&format!("/spec/strategy/rollingUpdate/{name}"));
            value.map_or_else(|| portion(&json!("25%"), replicas, up), |value| portion(value, replicas, up))
        };
        let (surge, mut unavailable) = (part("maxSurge", true), part("maxUnavailable", false));
        // Validation refuses two zeros; two percentages may still both round to zero, and then nothing could move.
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { replicas, surge, unavailable: unavailable.min(replicas), recreate }
    }

    const fn most(&self) -> i64 {
        if self.recreate { self.replicas } else { self.replicas + self.surge }
    }

    const fn least_available(&self) -> i64 {
        self.replicas - self.unavailable
    }
}

/// A number, or a percentage of `whole`.
fn portion(value: &Value, whole: i64, up: bool) -> i64 {
    if let Some(number) = value.as_i64() {
        return number.max(0);
    }
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok()).unwrap_or_default();
    let hundredfold = whole.saturating_mul(percent.max(0));
    if up { hundredfold.saturating_add(99) / 100 } else { hundredfold / 100 }
}

/// One look at the Deployment at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(deployment) = view.load(key)? else { return Ok(plan) };
    let seen = view.cluster.get(key).is_some_and(|object| object.revision == deployment.revision);
    if !seen || deployment.value.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(plan);
    }
    let Some(selector) = label_selector(deployment.value.pointer("/spec/selector")) else {
        return Ok(plan);
    };
    let Some(sets) = claim(view, key, &deployment, &selector)? else { return Ok(plan) };
    let wanted = Wanted::of(&deployment.value);
    let mut roll = Roll {
        about: About::of("apps/v1", "Deployment", &deployment.value),
        before: deployment.value.clone(),
        deployment,
        sets,
        new: None,
        wanted,
        plan: &mut plan,
    };
    roll.new = roll.sets.iter().position(|set| same_template(&set.loaded.value, &roll.deployment.value));
    roll.run(view, at);
    roll.finish(at);
    Ok(plan)
}

/// The Deployment's sets, oldest first; orphans that match are adopted. `None` when a set has moved on since it was
/// seen: its change will bring the reconcile back.
fn claim(
    view: &View<'_>,
    key: &Key,
    deployment: &Loaded,
    selector: &LabelSelector,
) -> Result<Option<Vec<Set>>, LoadError> {
    let uid = fields::text(&deployment.value, "/metadata/uid");
    let owner = pods::controlled_by("apps/v1", "Deployment", &deployment.value);
    let mut seen: Vec<&Object> = Vec::new();
    for object in view.cluster.resource("apps", "replicasets", key.parts().namespace) {
        let ours = object.controller().is_some_and(|owner| owner.uid == uid);
        let orphan =
            object.controller().is_none() && object.deletion.is_none() && selector.matches_labels(&object.labels);
        if ours || orphan {
            seen.push(object);
        }
    }
    seen.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut sets = Vec::with_capacity(seen.len());
    for object in seen {
        let Some(mut loaded) = view.load_seen(object)? else { return Ok(None) };
        let adopted = object.controller().is_none();
        if adopted {
            fields::list_mut(&mut loaded.value, &["metadata", "ownerReferences"]).push(owner.clone());
        }
        let live = view.cluster.pods_of(&object.uid).filter(|pod| pod.is_active_pod()).count();
        sets.push(Set { loaded, changed: adopted, live: i64::try_from(live).unwrap_or(i64::MAX) });
    }
    Ok(Some(sets))
}

/// Whether a set was made from the Deployment's template.
fn same_template(set: &Value, deployment: &Value) -> bool {
    let template = |object: &Value| {
        let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
        fields::remove(&mut template, &["metadata", "labels", HASH]);
        template
    };
    template(set) == template(deployment)
}

/// When a rollout under way counts as stuck.
fn progress_due(deployment: &Value, deadline: i64) -> Option<Moment> {
    let condition = fields::condition(deployment, "Progressing")?;
    let under_way =
        fields::text(condition, "/status") == "True" && fields::text(condition, "/reason") != "NewReplicaSetAvailable";
    let since = Moment::parse(fields::text(condition, "/lastUpdateTime"))?;
    under_way.then(|| since.plus_secs(u64::try_from(deadline).unwrap_or_default()))
}

/// One reconcile in progress.
struct Roll<'a> {
    about: About,
    before: Value,
    deployment: Loaded,
    sets: Vec<Set>,
    new: Option<usize>,
    wanted: Wanted,
    plan: &'a mut Plan,
}

impl Roll<'_> {
    fn run(&mut self, view: &View<'_>, at: &mut Occasion) {
        let paused = fields::is_true(&self.deployment.value, "/spec/paused");
        if paused || self.was_scaled() {
            self.number_new_set();
            self.scale();
            return;
        }
        if self.wanted.recreate {
            for old in self.old_sets() {
                self.scale_set(old, 0);
            }
            if self.new.is_none() && self.old_pods_remain(view) {
                return;
            }
            self.ensure_new_set(view, at);
            if let Some(new) = self.new.filter(|_| !self.old_pods_remain(view)) {
                self.scale_set(new, self.wanted.replicas);
            }
        } else {
            self.ensure_new_set(view, at);
            self.grow_new_set();
            self.shrink_old_sets();
        }
        self.forget_old_sets();
    }

    fn old_sets(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| Some(*index) != self.new).collect()
    }

    fn possible(&self) -> i64 {
        self.sets.iter().map(Set::possible).sum()
    }

    /// Pods of older templates that have not ended, going ones included.
    fn old_pods_remain(&self, view: &View<'_>) -> bool {
        self.old_sets().into_iter().any(|old| {
            let uid = fields::text(&self.sets[old].loaded.value, "/metadata/uid");
            view.cluster.pods_of(uid).any(|pod| pod.pod().is_some_and(|facts| facts.phase < Phase::Succeeded))
        })
    }

    /// `spec.replicas` changed since the sets were last scaled.
    fn was_scaled(&self) -> bool {
        self.sets.iter().filter(|set| set.replicas() > 0).any(|set| {
            let desired = annotation(&set.loaded.value, DESIRED).parse::<i64>();
            desired.is_ok_and(|desired| desired != self.wanted.replicas)
        })
    }

    /// The template's set has the highest revision number; the Deployment shows it.
    fn number_new_set(&mut self) {
        let Some(new) = self.new else { return };
        let highest = self.old_sets().into_iter().map(|old| self.sets[old].revision()).max().unwrap_or_default();
        let mut number = self.sets[new].revision();
        if number <= highest {
            number = highest + 1;
            self.annotate(new, REVISION, &number.to_string());
        }
        self.show_revision(number);
    }

    fn show_revision(&mut self, number: i64) {
        if annotation(&self.deployment.value, REVISION) != number.to_string() {
            fields::set(&mut self.deployment.value, &["metadata", "annotations", REVISION], number.to_string());
        }
    }

    fn annotate(&mut self, index: usize, name: &str, value: &str) {
        let set = &mut self.sets[index];
        if annotation(&set.loaded.value, name) != value {
            fields::set(&mut set.loaded.value, &["metadata", "annotations", name], value);
            set.changed = true;
        }
    }

    fn ensure_new_set(&mut self, view: &View<'_>, at: &mut Occasion) {
        if self.new.is_some() {
            self.number_new_set();
            let wait = fields::int(&self.deployment.value, "/spec/minReadySeconds").unwrap_or_default();
            if let Some(new) = self.new
                && fields::int(&self.sets[new].loaded.value, "/spec/minReadySeconds").unwrap_or_default() != wait
            {
                fields::set(&mut self.sets[new].loaded.value, &["spec", "minReadySeconds"], wait);
                self.sets[new].changed = true;
            }
            return;
        }
        let number = self.sets.iter().map(Set::revision).max().unwrap_or_default() + 1;
        let collisions = fields::int(&self.deployment.value, "/status/collisionCount");
        let template = self.deployment.value.pointer("/spec/template").cloned().unwrap_or_default();
        let hash = pods::hash_of(&template, collisions);
        let parts = self.deployment.key.parts();
        let name = format!("{}-{hash}", &parts.name[..parts.name.floor_char_boundary(240)]);
        let Some(key) = view.cluster.key("apps", "replicasets", parts.namespace, &name) else { return };
        if view.cluster.get(&key).is_some() {
            // A set of that name has another template: take another name next time.
            fields::set(&mut self.deployment.value, &["status", "collisionCount"], collisions.unwrap_or_default() + 1);
            self.plan.more = true;
            return;
        }
        let room = if self.wanted.recreate { self.wanted.replicas } else { self.wanted.most() - self.possible() };
        let replicas = room.clamp(0, self.wanted.replicas);
        let set = self.new_set(&name, &hash, template, replicas, number, at);
        self.plan.create(key, set);
        self.show_revision(number);
        let mut message = format!("Created new replica set \"{name}\"");
        fields::set_condition(
            &mut self.deployment.value,
            "Progressing",
            "True",
            "NewReplicaSetCreated",
            &message,
            &at.now.rfc3339(),
        );
        message = format!("Scaled up replica set {name} from 0 to {replicas}");
        self.plan.tell(self.about.clone(), NoticeKind::Normal, "ScalingReplicaSet", message);
    }

    fn new_set(
        &self,
        name: &str,
        hash: &str,
        mut template: Value,
        replicas: i64,
        number: i64,
        at: &mut Occasion,
    ) -> Value {
        let deployment = &self.deployment.value;
        fields::set(&mut template, &["metadata", "labels", HASH], hash);
        let mut selector = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
        fields::set(&mut selector, &["matchLabels", HASH], hash);
        let mut annotations: serde_json::Map<String, Value> =
            fields::map(deployment, "/metadata/annotations").cloned().unwrap_or_default();
        annotations.retain(|name, _| name != APPLIED && name != REVISION);
        annotations.insert(REVISION.into(), number.to_string().into());
        annotations.insert(DESIRED.into(), self.wanted.replicas.to_string().into());
        annotations.insert(MAX.into(), self.wanted.most().to_string().into());
        let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
        let mut spec = json!({ "replicas": replicas, "selector": selector, "template": template });
        if let Some(wait) = fields::int(deployment, "/spec/minReadySeconds").filter(|wait| *wait > 0) {
            fields::set(&mut spec, &["minReadySeconds"], wait);
        }
        json!({
            "metadata": {
                "name": name, "namespace": fields::text(deployment, "/metadata/namespace"),
                "uid": at.entropy.uid(), "generation": 1, "creationTimestamp": at.now.rfc3339(),
                "labels": labels, "annotations": annotations,
                "ownerReferences": [pods::controlled_by("apps/v1", "Deployment", deployment)],
            },
            "spec": spec, "status": { "replicas": 0 },
        })
    }

    /// Sets a set's size, with what it was sized for.
    fn scale_set(&mut self, index: usize, replicas: i64) {
        let (desired, most) = (self.wanted.replicas.to_string(), self.wanted.most().to_string());
        let before = self.sets[index].replicas();
        if before == replicas && before == 0 {
            return;
        }
        self.annotate(index, DESIRED, &desired);
        self.annotate(index, MAX, &most);
        if before == replicas {
            return;
        }
        let set = &mut self.sets[index];
        set.changed = true;
        fields::set(&mut set.loaded.value, &["spec", "replicas"], replicas);
        let generation = fields::int(&set.loaded.value, "/metadata/generation").unwrap_or_default();
        fields::set(&mut set.loaded.value, &["metadata", "generation"], generation + 1);
        let direction = if replicas > before { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {before} to {replicas}", set.name());
        self.plan.tell(self.about.clone(), NoticeKind::Normal, "ScalingReplicaSet", message);
    }

    /// A change of `replicas` alone: one active set takes all of it, several share it by their sizes.
    fn scale(&mut self) {
        let active: Vec<usize> = (0..self.sets.len()).filter(|index| self.sets[*index].replicas() > 0).collect();
        if let [only] | [only, ..] = active.as_slice()
            && active.len() == 1
        {
            let only = *only;
            let others: i64 = self.possible() - self.sets[only].possible();
            let room = (self.wanted.most() - others).max(0);
            self.scale_set(only, self.wanted.replicas.min(room));
            return;
        }
        if active.is_empty() {
            if let Some(new) = self.new {
                let room = (self.wanted.most() - self.possible()).max(0);
                self.scale_set(new, self.wanted.replicas.min(room));
            }
            return;
        }
        if self.wanted.recreate {
            return;
        }
        let total: i64 = active.iter().map(|index| self.sets[*index].replicas()).sum();
        let allowed = if self.wanted.replicas > 0 { self.wanted.most() } else { 0 };
        let mut left = allowed - total;
        // Growing, the largest set takes its share first; shrinking, the oldest of the largest goes first.
        let mut order = active;
        order.sort_by_key(|index| (Reverse(self.sets[*index].replicas()), *index));
        if left > 0 {
            left = left.min(allowed - self.possible()).max(0);
            order.sort_by_key(|index| (Reverse(self.sets[*index].replicas()), Reverse(*index)));
        }
        let change = left;
        let mut sizes: Vec<(usize, i64)> = Vec::new();
        for index in &order {
            let size = self.sets[*index].replicas();
            let share = (size * change).checked_div(total).unwrap_or_default();
            let share = if change > 0 { share.min(left) } else { share.max(left) };
            left -= share;
            sizes.push((*index, (size + share).max(0)));
        }
        if let Some(first) = sizes.first_mut() {
            first.1 = (first.1 + left).max(0);
        }
        for (index, size) in sizes {
            self.scale_set(index, size);
        }
    }

    fn grow_new_set(&mut self) {
        let Some(new) = self.new else { return };
        let has = self.sets[new].replicas();
        if has > self.wanted.replicas {
            self.scale_set(new, self.wanted.replicas);
            return;
        }
        let room = (self.wanted.most() - self.possible()).max(0);
        self.scale_set(new, has + room.min(self.wanted.replicas - has));
    }

    fn shrink_old_sets(&mut self) {
        let Some(new) = self.new else { return };
        let old = self.old_sets();
        let total: i64 = self.sets.iter().map(Set::replicas).sum();
        let new_unavailable = self.sets[new].replicas() - self.sets[new].available();
        let mut surplus = total - self.wanted.least_available() - new_unavailable;
        // First the old Pods that do not serve: their going costs nothing.
        for index in &old {
            let set = &self.sets[*index];
            let idle = (set.replicas() - set.available()).min(surplus).max(0);
            if idle > 0 {
                let size = set.replicas() - idle;
                self.scale_set(*index, size);
                surplus -= idle;
            }
        }
        let available: i64 = self.sets.iter().map(Set::available).sum();
        let mut surplus = surplus.min(available - self.wanted.least_available());
        for index in old {
            let going = self.sets[index].replicas().min(surplus).max(0);
            if going > 0 {
                let size = self.sets[index].replicas() - going;
                self.scale_set(index, size);
                surplus -= going;
            }
        }
    }

    fn is_complete(&self) -> bool {
        let count = |field: &str| -> i64 { self.sets.iter().map(|set| set.count(field)).sum() };
        self.new.is_some_and(|new| {
            self.sets[new].count("replicas") == self.wanted.replicas
                && self.sets[new].replicas() == self.wanted.replicas
                && count("replicas") == self.wanted.replicas
                && count("availableReplicas") == self.wanted.replicas
        })
    }

    /// Beyond `revisionHistoryLimit` the oldest empty sets go.
    fn forget_old_sets(&mut self) {
        if !self.is_complete() {
            return;
        }
        let keep = fields::int(&self.deployment.value, "/spec/revisionHistoryLimit").unwrap_or(10);
        let mut empty = self.old_sets();
        empty.retain(|index| {
            let set = &self.sets[*index];
            set.replicas() == 0
                && set.live == 0
                && set.count("replicas") == 0
                && !set.changed
                && set.loaded.value.pointer("/metadata/deletionTimestamp").is_none()
                && fields::list(&set.loaded.value, "/metadata/finalizers").is_empty()
        });
        empty.sort_by_key(|index| self.sets[*index].revision());
        let surplus = empty.len().saturating_sub(usize::try_from(keep).unwrap_or_default());
        let mut going: Vec<usize> = empty.into_iter().take(surplus).collect();
        going.sort_unstable_by_key(|index| Reverse(*index));
        for index in going {
            let set = self.sets.remove(index);
            self.plan.delete(&set.loaded.key, set.loaded.revision);
            self.new = self.new.map(|new| if new > index { new - 1 } else { new });
        }
    }

    fn finish(self, at: &Occasion) {
        let status = self.status(at);
        let Self { before, mut deployment, sets, plan, .. } = self;
        fields::set(&mut deployment.value, &["status"], status);
        if let Some(deadline) = fields::int(&deployment.value, "/spec/progressDeadlineSeconds")
            && let Some(due) = progress_due(&deployment.value, deadline)
        {
            plan.look_again(due);
        }
        for set in sets {
            if set.changed {
                plan.update(set.loaded);
            } else {
                plan.rely_on(&set.loaded.key, set.loaded.revision);
            }
        }
        if deployment.value == before {
            if plan.writes.is_empty() {
                plan.relies_on.clear();
            } else {
                plan.rely_on(&deployment.key, deployment.revision);
            }
        } else {
            plan.update(deployment);
        }
    }

    fn status(&self, at: &Occasion) -> Value {
        let now = at.now.rfc3339();
        let mut scratch = self.deployment.value.clone();
        let count = |field: &str| -> i64 { self.sets.iter().map(|set| set.count(field)).sum() };
        let (replicas, available) = (count("replicas"), count("availableReplicas"));
        let updated = self.new.map_or(0, |new| self.sets[new].count("replicas"));
        // What is asked for and not there counts too, whether its Pod exists yet or not.
        let asked: i64 = self.sets.iter().map(Set::replicas).sum();
        let counts = [
            ("replicas", replicas),
            ("updatedReplicas", updated),
            ("readyReplicas", count("readyReplicas")),
            ("availableReplicas", available),
            ("unavailableReplicas", (asked - available).max(0)),
        ];
        for (name, count) in counts {
            fields::set_or_remove(&mut scratch, &["status", name], (count > 0).then(|| json!(count)));
        }
        let generation = scratch.pointer("/metadata/generation").cloned();
        fields::set_or_remove(&mut scratch, &["status", "observedGeneration"], generation);
        if available >= self.wanted.least_available() {
            let told = ("MinimumReplicasAvailable", "Deployment has minimum availability.");
            fields::set_condition(&mut scratch, "Available", "True", told.0, told.1, &now);
        } else {
            let told = ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.");
            fields::set_condition(&mut scratch, "Available", "False", told.0, told.1, &now);
        }
        self.progress(&mut scratch, &now, (replicas, updated, available));
        scratch.get("status").cloned().unwrap_or_default()
    }

    fn progress(&self, scratch: &mut Value, now: &str, (replicas, updated, available): (i64, i64, i64)) {
        let Some(deadline) = fields::int(scratch, "/spec/progressDeadlineSeconds").filter(|secs| *secs < 2_147_483_647)
        else {
            fields::remove_condition(scratch, "Progressing");
            return;
        };
        if fields::is_true(scratch, "/spec/paused") {
            fields::set_condition(scratch, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now);
            return;
        }
        let Some(new) = self.new else { return };
        let name = self.sets[new].name();
        if self.is_complete() {
            let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
            fields::set_condition(scratch, "Progressing", "True", "NewReplicaSetAvailable", &message, now);
            return;
        }
        let was = |field: &str| fields::int(&self.before, &format!("/status/{field}")).unwrap_or_default();
        let moved = updated > was("updatedReplicas")
            || replicas - updated < was("replicas") - was("updatedReplicas")
            || available > was("availableReplicas");
        if moved {
            let message = format!("ReplicaSet \"{name}\" is progressing.");
            fields::set_condition(scratch, "Progressing", "True", "ReplicaSetUpdated", &message, now);
            if let Some(condition) = fields::list_mut(scratch, &["status", "conditions"])
                .iter_mut()
                .find(|condition| fields::text(condition, "/type") == "Progressing")
            {
                fields::set(condition, &["lastUpdateTime"], now);
            }
            return;
        }
        let late = progress_due(scratch, deadline).is_some_and(|due| due.rfc3339().as_str() <= now);
        if late {
            let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
            fields::set_condition(scratch, "Progressing", "False", "ProgressDeadlineExceeded", &message, now);
        }
    }
}
