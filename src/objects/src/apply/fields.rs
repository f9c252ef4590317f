//! Sets of fields as trees, in the form `managedFields` stores them (`FieldsV1`).
//!
//! A step is the key that form uses: `f:spec`, `k:{"name":"a"}`, `v:"x"`. It knows no types.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// This place itself is in the set.
    pub(super) here: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// The set of this place alone.
    pub(super) fn leaf() -> Self {
        Self { here: true, children: BTreeMap::new() }
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.here && self.children.values().all(FieldSet::is_empty)
    }

    /// Reads the stored form; steps of unknown form are kept as they are.
    pub fn from_value(value: &Value) -> Self {
        let Value::Object(map) = value else { return Self::default() };
        if map.is_empty() {
            return Self::leaf();
        }
        let mut set = Self::default();
        for (step, inner) in map {
            if step == "." {
                set.here = true;
            } else {
                set.children.insert(step.clone(), Self::from_value(inner));
            }
        }
        set
    }

    /// The stored form of the whole set.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (step, inner) in &self.children {
            if !inner.is_empty() {
                map.insert(step.clone(), inner.to_value());
            }
        }
        if self.here && !map.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        Value::Object(map)
    }

    /// Puts a child in unless it is empty.
    pub(super) fn put(&mut self, step: String, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(step, child);
        }
    }

    /// Adds all of `other`.
    pub(super) fn add(&mut self, other: &FieldSet) {
        self.here |= other.here;
        for (step, inner) in &other.children {
            self.children.entry(step.clone()).or_default().add(inner);
        }
    }

    /// Takes away the members of `other`.
    pub(super) fn subtract(&mut self, other: &FieldSet) {
        self.here &= !other.here;
        for (step, inner) in &other.children {
            if let Some(mine) = self.children.get_mut(step) {
                mine.subtract(inner);
                if mine.is_empty() {
                    self.children.remove(step);
                }
            }
        }
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut both = FieldSet { here: self.here && other.here, children: BTreeMap::new() };
        for (step, inner) in &self.children {
            if let Some(others) = other.children.get(step) {
                both.put(step.clone(), inner.intersection(others));
            }
        }
        both
    }

    /// Takes away a field, named from the root, and all below it.
    pub(super) fn drop_path(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let step = format!("f:{first}");
        if rest.is_empty() {
            self.children.remove(&step);
        } else if let Some(child) = self.children.get_mut(&step) {
            child.drop_path(rest);
            if child.is_empty() {
                self.children.remove(&step);
            }
        }
    }

    /// Paths of all members, in the form of messages: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(String::new(), &mut paths);
        paths
    }

    fn collect(&self, path: String, paths: &mut Vec<String>) {
        for (step, inner) in &self.children {
            inner.collect(format!("{path}{}", shown(step)), paths);
        }
        if self.here {
            paths.push(path);
        }
    }
}

fn shown(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => match serde_json::from_str::<Map<String, Value>>(keys) {
            Ok(keys) => {
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", keys.join(","))
            }
            Err(_) => format!("[{keys}]"),
        },
        Some(("v", value)) => format!("[={value}]"),
        _ => format!("[{step}]"),
    }
}
