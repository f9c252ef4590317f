//! Merging, comparing and taking away, by the topology of the type.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::fields::FieldSet;
use super::topology::{Topology, Tree, value_step};

/// What differs between two versions of an object.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Fields added or changed.
    pub(super) set: FieldSet,
    /// Fields removed.
    pub(super) removed: FieldSet,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}

impl Tree<'_> {
    /// `live` with everything `wanted` says.
    pub(super) fn merged(self, live: &Value, wanted: &Value) -> Result<Value, String> {
        Ok(match (self.topology(), live, wanted) {
            (Topology::Members, Value::Object(old), Value::Object(new)) => {
                let mut map = old.clone();
                for (key, value) in new {
                    let value = match old.get(key) {
                        Some(old) => self.member(key).merged(old, value)?,
                        None => value.clone(),
                    };
                    map.insert(key.clone(), value);
                }
                Value::Object(map)
            }
            (Topology::Items(keys), Value::Array(old), Value::Array(new)) => {
                let mut places = HashMap::new();
                for (at, item) in old.iter().enumerate() {
                    places.entry(self.item_step(&keys, item)?).or_insert(at);
                }
                let mut items = Vec::with_capacity(new.len());
                for item in new {
                    let place = places.remove(&self.item_step(&keys, item)?);
                    let item = match place.and_then(|at| old.get(at)) {
                        Some(old) => self.item().merged(old, item)?,
                        None => item.clone(),
                    };
                    items.push((place, item));
                }
                let taken: HashSet<usize> = items.iter().filter_map(|(place, _)| *place).collect();
                Value::Array(interleave(items, old, &taken))
            }
            (Topology::Values, Value::Array(old), Value::Array(new)) => {
                let mut seen: HashSet<String> = new.iter().map(value_step).collect();
                let mut items = old.clone();
                let present: HashSet<String> = old.iter().map(value_step).collect();
                items.extend(
                    new.iter()
                        .filter(|item| !present.contains(&value_step(item)) && seen.remove(&value_step(item)))
                        .cloned(),
                );
                Value::Array(items)
            }
            (_, _, wanted) => wanted.clone(),
        })
    }

    /// What `new` has that `old` had not, and the reverse.
    pub(super) fn compare(self, old: Option<&Value>, new: Option<&Value>) -> Changes {
        let mut changes = Changes::default();
        match (old, new) {
            (None, None) => {}
            // A live object with odd items (no key, doubles) is owned as far as it can be named.
            (None, Some(new)) => changes.set = self.owned(new).unwrap_or_default(),
            (Some(old), None) => changes.removed = self.owned(old).unwrap_or_default(),
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => match (self.topology(), old, new) {
                (Topology::Members, Value::Object(old), Value::Object(new)) => {
                    for (key, value) in old {
                        changes.put(
                            format!("f:{key}"),
                            self.member(key).compare(Some(value), new.get(key)),
                            Presence::of(new.contains_key(key), !self.declares(key)),
                        );
                    }
                    for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                        let mut child = self.member(key).compare(None, Some(value));
                        let bare = value.as_object().is_some_and(Map::is_empty);
                        child.set.here |= bare || !self.declares(key);
                        changes.put(format!("f:{key}"), child, Presence::Kept);
                    }
                }
                (Topology::Items(keys), Value::Array(old), Value::Array(new)) => {
                    let keyed = |items: &[Value]| -> HashMap<String, Value> {
                        items
                            .iter()
                            .filter_map(|item| self.item_step(&keys, item).ok().map(|step| (step, item.clone())))
                            .collect()
                    };
                    let (old, mut new) = (keyed(old), keyed(new));
                    for (step, value) in &old {
                        let other = new.remove(step);
                        let presence = Presence::of(other.is_some(), true);
                        changes.put(step.clone(), self.item().compare(Some(value), other.as_ref()), presence);
                    }
                    for (step, value) in new {
                        let mut child = self.item().compare(None, Some(&value));
                        child.set.here = true;
                        changes.put(step, child, Presence::Kept);
                    }
                }
                (Topology::Values, Value::Array(old), Value::Array(new)) => {
                    let before: HashSet<String> = old.iter().map(value_step).collect();
                    let after: HashSet<String> = new.iter().map(value_step).collect();
                    for step in after.difference(&before) {
                        changes.set.put(step.clone(), FieldSet::leaf());
                    }
                    for step in before.difference(&after) {
                        changes.removed.put(step.clone(), FieldSet::leaf());
                    }
                }
                _ => changes.set.here = true,
            },
        }
        changes
    }

    /// Takes away from `value` what `last` names and `kept` does not.
    pub(super) fn remove(self, value: &mut Value, last: &FieldSet, kept: &FieldSet) {
        let nothing = FieldSet::default();
        match (self.topology(), value) {
            (Topology::Members, Value::Object(map)) => {
                for (step, gone) in &last.children {
                    let Some(key) = step.strip_prefix("f:") else { continue };
                    match kept.children.get(step) {
                        Some(kept) if !kept.is_empty() => {
                            if let Some(member) = map.get_mut(key) {
                                self.member(key).remove(member, gone, kept);
                            }
                        }
                        _ => {
                            map.remove(key);
                        }
                    }
                }
            }
            (Topology::Items(keys), Value::Array(items)) => {
                items.retain_mut(|item| {
                    let Ok(step) = self.item_step(&keys, item) else { return true };
                    let Some(gone) = last.children.get(&step) else { return true };
                    let kept = kept.children.get(&step).unwrap_or(&nothing);
                    if gone.here && kept.is_empty() {
                        return false;
                    }
                    // The keys stay as long as the item does.
                    let mut gone = gone.clone();
                    for key in &keys {
                        gone.drop_path(&[key]);
                    }
                    self.item().remove(item, &gone, kept);
                    true
                });
            }
            (Topology::Values, Value::Array(items)) => items.retain(|item| {
                let step = value_step(item);
                !last.children.contains_key(&step) || kept.children.contains_key(&step)
            }),
            _ => {}
        }
    }
}

/// Whether the removal of a place is a change of its own.
#[derive(Clone, Copy)]
enum Presence {
    Kept,
    Gone,
}

impl Presence {
    /// Places of maps and lists are members themselves; declared fields are not.
    fn of(present: bool, is_member: bool) -> Self {
        if present || !is_member { Self::Kept } else { Self::Gone }
    }
}

impl Changes {
    fn put(&mut self, step: String, mut child: Changes, presence: Presence) {
        if matches!(presence, Presence::Gone) {
            child.removed.here = true;
        }
        self.set.put(step.clone(), child.set);
        self.removed.put(step, child.removed);
    }
}

/// The wanted items in their order, the others of the live list put between them where they stood.
fn interleave(wanted: Vec<(Option<usize>, Value)>, live: &[Value], taken: &HashSet<usize>) -> Vec<Value> {
    let mut others = live.iter().enumerate().filter(|(at, _)| !taken.contains(at)).peekable();
    let mut items = Vec::with_capacity(live.len() + wanted.len());
    for (place, item) in wanted {
        while let Some((_, other)) = others.next_if(|(at, _)| place.is_some_and(|place| *at < place)) {
            items.push(other.clone());
        }
        items.push(item);
    }
    items.extend(others.map(|(_, other)| other.clone()));
    items
}
