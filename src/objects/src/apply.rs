//! Server-side apply and field ownership: who set which field, and what happens when somebody else sets it too.
//!
//! An apply merges what a manager wants into the object, takes away what the manager wanted before and wants no longer, and refuses to
//! change fields others own unless forced. Any other write moves the ownership of what it changes to its manager. Lists, maps and objects
//! are owned as a whole or in parts as the type says. Time comes with the request; nothing is known about storage or HTTP.

mod fields;
mod managers;
mod merge;
mod topology;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::kind::Target;
use crate::status::{Cause, Status};

pub use fields::FieldSet;
use managers::Managers;
pub use managers::{Manager, Operation};

/// Name under which fields are owned that were set before ownership was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Whether an apply may take fields from other managers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// A field somebody else owns and that would change is a conflict.
    #[default]
    Refuse,
    /// Such fields change hands.
    Take,
}

/// Who writes, through which part of the resource, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Name of the field manager.
    pub manager: &'a str,
    /// Subresource written through, empty for the main resource.
    pub subresource: &'a str,
    /// Now, in RFC 3339 form with seconds.
    pub now: &'a str,
}

/// A field somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its owner.
    pub manager: Manager,
    /// Path, such as `.spec.containers[name="a"].image`.
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ApplyError {
    /// The applied object is not one that can be applied.
    #[error("{0}")]
    Malformed(String),
    /// Others own fields that would change.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
}

impl ApplyError {
    /// The answer to the client: a conflict has a cause for each manager and field.
    pub fn status(&self) -> Status {
        match self {
            Self::Malformed(text) => Status::bad_request(text.clone()),
            Self::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|conflict| Cause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: format!("conflict with {}", conflict.manager),
                    field: conflict.field.clone(),
                });
                Status::apply_conflict(self.to_string(), causes.collect())
            }
        }
    }
}

fn conflict_text(conflicts: &[Conflict]) -> String {
    let mut by_manager: Vec<(&Manager, Vec<&str>)> = Vec::new();
    for conflict in conflicts {
        match by_manager.iter_mut().find(|(manager, _)| *manager == &conflict.manager) {
            Some((_, fields)) => fields.push(&conflict.field),
            None => by_manager.push((&conflict.manager, vec![&conflict.field])),
        }
    }
    let texts: Vec<String> = by_manager
        .iter()
        .map(|(manager, fields)| match fields.as_slice() {
            [field] => format!("conflict with {manager}: {field}"),
            fields => format!("conflicts with {manager}:\n- {}", fields.join("\n- ")),
        })
        .collect();
    let word = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
    format!("Apply failed with {} {word}: {}", conflicts.len(), texts.join("\n"))
}

/// Applies `wanted` (decoded, no defaults filled in) to `current`, or creates from it.
///
/// The outcome has its `managedFields`; it equals `current` when nothing changes.
pub fn apply<'a>(
    target: impl Into<Target<'a>>,
    current: Option<&Value>,
    wanted: &Value,
    writer: Writer<'_>,
    force: Force,
) -> Result<Value, ApplyError> {
    let target = target.into();
    if writer.manager.is_empty() {
        return Err(ApplyError::Malformed("a field manager is required for apply patches".to_owned()));
    }
    if wanted.pointer("/metadata/managedFields").is_some() {
        return Err(ApplyError::Malformed("metadata.managedFields must be absent in an applied object".to_owned()));
    }
    let tree = topology::Tree::root(target.node);
    let empty = Value::Object(Map::new());
    let live = current.map_or_else(|| empty.clone(), without_managed_fields);
    let mut managers = match current {
        Some(current) => Managers::read(current),
        None => Managers::default(),
    };
    if current.is_some() && managers.is_empty() {
        let mut before = tree.owned(&live).map_err(ApplyError::Malformed)?;
        ignore(&mut before, writer.subresource);
        managers.set(Manager::updating(BEFORE_FIRST_APPLY, target), before, writer.now);
    }
    let me = Manager {
        name: writer.manager.to_owned(),
        operation: Operation::Apply,
        subresource: writer.subresource.to_owned(),
        api_version: target.api_version(),
    };
    let mut mine = tree.owned(wanted).map_err(ApplyError::Malformed)?;
    ignore(&mut mine, writer.subresource);
    let last = managers.take_apply(&me);
    let mut merged = tree.merged(&live, wanted).map_err(ApplyError::Malformed)?;
    if let Some(last) = &last {
        let mut kept = managers.all_owned();
        kept.add(&mine);
        tree.remove(&mut merged, last, &kept);
    }
    let changes = tree.compare(Some(&live), Some(&merged));
    let conflicts = managers.conflicts(&changes.set);
    if force == Force::Refuse && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.give_up(&changes.set, &changes.removed);
    managers.set(me, mine, writer.now);
    let same = current.is_some() && changes.is_empty();
    Ok(finish(current, merged, &managers, same))
}

/// Records that `writer` made `new` out of `old` by any write but an apply, and puts the `managedFields` into `new`.
///
/// `managedFields` sent by the client count as the present state; an empty list, or one of an empty entry, drops all records.
pub fn track<'a>(target: impl Into<Target<'a>>, old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let target = target.into();
    let sent = new.pointer("/metadata/managedFields").and_then(Value::as_array);
    if sent.is_some_and(|entries| entries.iter().all(|entry| entry.as_object().is_some_and(Map::is_empty))) {
        *new = without_managed_fields(new);
        return;
    }
    let mut managers = match (sent, old) {
        (Some(_), _) => Managers::read(new),
        (None, Some(old)) => Managers::read(old),
        (None, None) => Managers::default(),
    };
    let tree = topology::Tree::root(target.node);
    let live = old.map(without_managed_fields);
    let next = without_managed_fields(new);
    let mut changes = tree.compare(live.as_ref(), Some(&next));
    ignore(&mut changes.set, writer.subresource);
    ignore(&mut changes.removed, writer.subresource);
    managers.give_up(&changes.set, &changes.removed);
    let me = Manager {
        name: writer.manager.to_owned(),
        operation: Operation::Update,
        subresource: writer.subresource.to_owned(),
        api_version: target.api_version(),
    };
    managers.extend(me, changes.set, writer.now);
    let same = changes.removed.is_empty() && old.is_some() && live.as_ref() == Some(&next);
    *new = finish(old, next, &managers, same);
}

/// Puts the records into the object; where neither object nor records changed, `old` is the outcome as it was, times included.
fn finish(old: Option<&Value>, object: Value, managers: &Managers, same: bool) -> Value {
    let mut object = object;
    if let Some(old) = old.filter(|old| same && Managers::read(old).owns_the_same(managers)) {
        return old.clone();
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if managers.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), managers.to_value());
        }
    }
    object
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Fields nobody owns: names and what the control plane writes, and the part of the object this write cannot touch.
fn ignore(set: &mut FieldSet, subresource: &str) {
    const METADATA: &[&str] = &[
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    for name in ["apiVersion", "kind"] {
        set.drop_path(&[name]);
    }
    for name in METADATA {
        set.drop_path(&["metadata", name]);
    }
    set.drop_path(&[if subresource == "status" { "spec" } else { "status" }]);
}

#[cfg(test)]
mod tests;
