//! The records in `metadata.managedFields`: which manager owns which fields since when.

use std::fmt;

use serde_json::{Value, json};

use super::Conflict;
use super::fields::FieldSet;
use crate::kind::Target;

/// Most records of updating managers; the oldest are joined beyond that, as upstream.
const MAX_UPDATING: usize = 10;
/// Owner of joined records.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// A field manager: the same name counts anew for each operation, subresource and version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manager {
    /// Its name.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// Subresource it writes through, empty for the main resource.
    pub subresource: String,
    /// Version its fields are named in.
    pub api_version: String,
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        write!(f, " using {}", self.api_version)
    }
}

impl Manager {
    pub(super) fn updating(name: &str, target: Target<'_>) -> Self {
        Self {
            name: name.to_owned(),
            operation: Operation::Update,
            subresource: String::new(),
            api_version: target.api_version(),
        }
    }
}

struct Record {
    manager: Manager,
    fields: FieldSet,
    time: String,
}

/// All records of an object.
#[derive(Default)]
pub(super) struct Managers {
    records: Vec<Record>,
}

impl Managers {
    /// Reads an object's records; entries that make no sense are left out.
    pub(super) fn read(object: &Value) -> Self {
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let records = entries.into_iter().flatten().filter_map(|entry| {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let operation = match entry.get("operation")?.as_str()? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            let manager = Manager {
                name: text("manager"),
                operation,
                subresource: text("subresource"),
                api_version: text("apiVersion"),
            };
            let fields = FieldSet::from_value(entry.get("fieldsV1")?);
            Some(Record { manager, fields, time: text("time") })
        });
        Self { records: records.filter(|record| !record.fields.is_empty()).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records as an object carries them.
    pub(super) fn to_value(&self) -> Value {
        let mut records: Vec<&Record> = self.records.iter().collect();
        records.sort_by(|a, b| {
            (a.manager.operation, &a.time, &a.manager).cmp(&(b.manager.operation, &b.time, &b.manager))
        });
        let entry = |record: &&Record| {
            let operation = match record.manager.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            };
            let mut entry = json!({
                "manager": record.manager.name, "operation": operation, "apiVersion": record.manager.api_version,
                "fieldsType": "FieldsV1", "fieldsV1": record.fields.to_value(),
            });
            for (key, text) in [("time", &record.time), ("subresource", &record.manager.subresource)] {
                if let Some(map) = entry.as_object_mut().filter(|_| !text.is_empty()) {
                    map.insert(key.to_owned(), text.as_str().into());
                }
            }
            entry
        };
        records.iter().map(entry).collect()
    }

    /// Takes out what this manager applied last.
    pub(super) fn take_apply(&mut self, manager: &Manager) -> Option<FieldSet> {
        let at = self.records.iter().position(|record| {
            // An apply in another version of the same group is the same manager's.
            let other = &record.manager;
            (&other.name, other.operation, &other.subresource)
                == (&manager.name, Operation::Apply, &manager.subresource)
        })?;
        let record = self.records.remove(at);
        Some(record.fields)
    }

    /// All fields somebody owns.
    pub(super) fn all_owned(&self) -> FieldSet {
        let mut all = FieldSet::default();
        for record in &self.records {
            all.add(&record.fields);
        }
        all
    }

    /// Whose fields are among the changed ones.
    pub(super) fn conflicts(&self, changed: &FieldSet) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for record in &self.records {
            for field in record.fields.intersection(changed).paths() {
                conflicts.push(Conflict { manager: record.manager.clone(), field });
            }
        }
        conflicts
    }

    /// Everyone loses what was changed or removed.
    pub(super) fn give_up(&mut self, changed: &FieldSet, removed: &FieldSet) {
        for record in &mut self.records {
            record.fields.subtract(changed);
            record.fields.subtract(removed);
        }
        self.records.retain(|record| !record.fields.is_empty());
    }

    /// A manager owns exactly these fields.
    pub(super) fn set(&mut self, manager: Manager, fields: FieldSet, now: &str) {
        self.records.retain(|record| record.manager != manager);
        if !fields.is_empty() {
            self.records.push(Record { manager, fields, time: now.to_owned() });
        }
    }

    /// A manager owns these fields too.
    pub(super) fn extend(&mut self, manager: Manager, fields: FieldSet, now: &str) {
        if fields.is_empty() {
            return;
        }
        match self.records.iter_mut().find(|record| record.manager == manager) {
            Some(record) => {
                record.fields.add(&fields);
                now.clone_into(&mut record.time);
            }
            None => self.records.push(Record { manager, fields, time: now.to_owned() }),
        }
        self.join_old();
    }

    /// Keeps the number of updating managers bounded: the oldest records of a version become one.
    fn join_old(&mut self) {
        let updating = |record: &Record| record.manager.operation == Operation::Update;
        while self.records.iter().filter(|record| updating(record)).count() > MAX_UPDATING {
            let oldest = |skip: Option<usize>, records: &[Record]| {
                let known = records.iter().enumerate().filter(|(at, record)| updating(record) && Some(*at) != skip);
                known.min_by(|(_, a), (_, b)| a.time.cmp(&b.time)).map(|(at, _)| at)
            };
            let Some(at) = oldest(None, &self.records) else { return };
            let old = self.records.remove(at);
            let manager = Manager { name: ANCIENT.to_owned(), subresource: String::new(), ..old.manager.clone() };
            match self.records.iter_mut().find(|record| record.manager == manager) {
                Some(record) => {
                    record.fields.add(&old.fields);
                }
                None if old.manager == manager => {
                    // The joined record is itself the oldest: join the next one into it.
                    let Some(next) = oldest(None, &self.records) else { return };
                    let next = self.records.remove(next);
                    let mut fields = old.fields;
                    fields.add(&next.fields);
                    self.records.push(Record { manager, fields, time: next.time });
                }
                None => self.records.push(Record { manager, ..old }),
            }
        }
    }

    /// Whether both sets of records own the same fields, whenever they came to.
    pub(super) fn owns_the_same(&self, other: &Managers) -> bool {
        self.records.len() == other.records.len()
            && self.records.iter().all(|record| {
                other
                    .records
                    .iter()
                    .any(|candidate| candidate.manager == record.manager && candidate.fields == record.fields)
            })
    }
}
