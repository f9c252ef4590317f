//! Disruption budgets, as far as evictions by the control plane must honour them.

use std::collections::BTreeMap;

use quilt_objects::select::LabelSelector;
use quilt_proto::{Key, KeyPrefix};
use serde_json::Value;

use crate::object::{Object, label_selector};
use crate::view::{LoadError, View};

/// Most budgets of one namespace that are looked at.
const BUDGETS_MAX: u32 = 1_000;

/// What the budgets of the namespaces seen so far still allow.
pub struct Budgets<'a, 'v> {
    view: &'a View<'v>,
    namespaces: BTreeMap<String, Vec<Budget>>,
}

struct Budget {
    key: Key,
    selector: LabelSelector,
    allowed: i64,
}

impl<'a, 'v> Budgets<'a, 'v> {
    /// No budget looked at yet.
    #[must_use]
    pub const fn new(view: &'a View<'v>) -> Self {
        Self { view, namespaces: BTreeMap::new() }
    }

    /// Takes one disruption for `pod` from every budget that covers it, if all of them allow it.
    ///
    /// # Errors
    /// State could not be read.
    pub fn take(&mut self, pod: &Object) -> Result<bool, LoadError> {
        let namespace = pod.namespace();
        if !self.namespaces.contains_key(namespace) {
            let budgets = read(self.view, namespace)?;
            self.namespaces.insert(namespace.to_owned(), budgets);
        }
        // A Pod that does not serve protects nothing.
        if !self.view.is_ready(pod) {
            return Ok(true);
        }
        let Some(budgets) = self.namespaces.get_mut(namespace) else { return Ok(true) };
        let mut covering: Vec<&mut Budget> =
            budgets.iter_mut().filter(|budget| budget.selector.matches_labels(&pod.labels)).collect();
        if covering.iter().any(|budget| budget.allowed <= 0) {
            let names: Vec<&str> = covering.iter().map(|budget| budget.key.parts().name).collect();
            tracing::debug!(pod = pod.name(), ?names, "eviction waits for a disruption budget");
            return Ok(false);
        }
        for budget in &mut covering {
            budget.allowed -= 1;
        }
        Ok(true)
    }
}

fn read(view: &View<'_>, namespace: &str) -> Result<Vec<Budget>, LoadError> {
    let prefix = KeyPrefix::namespace(view.cluster.id(), "policy", "poddisruptionbudgets", namespace);
    let Ok(prefix) = prefix else { return Ok(Vec::new()) };
    let mut budgets = Vec::new();
    for (key, record) in view.source.first(&prefix, BUDGETS_MAX)? {
        let value: Value =
            serde_json::from_slice(&record.value).map_err(|source| LoadError::Corrupt { key: key.clone(), source })?;
        let Some(selector) = label_selector(value.pointer("/spec/selector")) else { continue };
        let pods = view.cluster.pods_matching(namespace, &selector);
        let active: Vec<_> = pods.into_iter().filter(|pod| pod.is_active_pod()).collect();
        let expected = i64::try_from(active.len()).unwrap_or(i64::MAX);
        let healthy = i64::try_from(active.iter().filter(|pod| view.is_ready(pod)).count()).unwrap_or(i64::MAX);
        let part = |value: &Value| -> i64 {
            let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
            // Both bounds are rounded up, as budgets are.
            value.as_i64().unwrap_or_else(|| (expected * percent.unwrap_or_default() + 99) / 100)
        };
        let needed = match (value.pointer("/spec/minAvailable"), value.pointer("/spec/maxUnavailable")) {
            (Some(least), _) if !least.is_null() => part(least),
            (_, Some(most)) if !most.is_null() => expected - part(most),
            _ => expected,
        };
        budgets.push(Budget { key, selector, allowed: healthy - needed });
    }
    Ok(budgets)
}
