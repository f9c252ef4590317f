//! [`Resources`]: amounts by resource name, as whole numbers. CPU counts in thousandths, everything else in its unit.

use std::collections::BTreeMap;

use quilt_objects::quantity::Quantity;
use serde_json::Value;

/// Name of the resource that counts Pods.
pub const PODS: &str = "pods";
/// Name of the resource that counts Quilt's devices.
pub const GPU: &str = "quilt.sh/gpu";

/// Amounts by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// Reads a map of quantities; what is no quantity counts as nothing, since validation refused it before.
    #[must_use]
    pub fn read(map: &BTreeMap<String, Value>) -> Self {
        let amount = |name: &str, value: &Value| {
            let quantity = Quantity::from_value(value).unwrap_or(Quantity::ZERO);
            if name == "cpu" { quantity.milli_value() } else { quantity.value() }
        };
        Self(map.iter().map(|(name, value)| (name.clone(), amount(name, value))).collect())
    }

    /// The amount of `name`, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }

    /// Sets the amount of `name`.
    pub fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_owned(), amount);
    }

    /// All amounts above zero.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().filter(|(_, amount)| **amount > 0).map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_sub(*amount);
        }
    }

    /// The larger of both, resource by resource.
    pub fn at_least(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
    }
}
