//! Printer columns: objects as rows of a `meta.k8s.io/v1` Table, which is what `kubectl get` shows.
//!
//! Which columns a kind has is said in the files beside and reached through its hooks; time comes with the call.

mod age;
pub(crate) mod apps;
pub(crate) mod cluster;
pub(crate) mod core;
pub(crate) mod pods;
pub(crate) mod storage;

pub use age::{duration_text, unix_seconds};
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::place;

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// JSON type of the cells.
    pub cell: Cell,
    /// Where it is shown.
    pub shown: Shown,
    /// One sentence on what it says.
    pub description: &'static str,
}

/// JSON type of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The object's name.
    Name,
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// Yes or no.
    Flag,
    /// A time, shown as it is.
    Time,
}

/// Where a column is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Always.
    Always,
    /// With `-o wide`.
    Wide,
}

/// The columns of a kind and how to fill them.
pub struct Printer {
    /// Columns, in order.
    pub columns: &'static [Column],
    /// Cells of one object at unix second `now`, one per column. Accepts any object shape.
    pub cells: fn(&Value, i64) -> Vec<Value>,
}

/// What a row carries besides its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// The object's metadata.
    #[default]
    Metadata,
    /// Nothing.
    None,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

pub(crate) const fn column(name: &'static str, cell: Cell, description: &'static str) -> Column {
    Column { name, cell, shown: Shown::Always, description }
}

pub(crate) const fn text(name: &'static str, description: &'static str) -> Column {
    column(name, Cell::Text, description)
}

pub(crate) const fn integer(name: &'static str, description: &'static str) -> Column {
    column(name, Cell::Integer, description)
}

pub(crate) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, cell: Cell::Text, shown: Shown::Wide, description }
}

pub(crate) const NAME: Column = column("Name", Cell::Name, "Name of the object, unique in its namespace.");
pub(crate) const AGE: Column = text("Age", "Time since the object was created.");
pub(crate) const CREATED_AT: Column = column("Created At", Cell::Time, "When the object was created.");

/// Name and age: every kind without columns of its own.
pub(crate) static PLAIN: Printer =
    Printer { columns: &[NAME, AGE], cells: |object, now| vec![name(object), age(object, now)] };

/// `columnDefinitions` of a kind.
#[must_use]
pub fn columns(kind: &Kind) -> Value {
    let columns = crate::hooks::of(kind).printer.columns;
    columns.iter().map(definition).collect()
}

fn definition(column: &Column) -> Value {
    let (cell_type, format) = match column.cell {
        Cell::Name => ("string", "name"),
        Cell::Text => ("string", ""),
        Cell::Integer => ("integer", ""),
        Cell::Flag => ("boolean", ""),
        Cell::Time => ("date", ""),
    };
    let priority = match column.shown {
        Shown::Always => 0,
        Shown::Wide => 1,
    };
    json!({"name": column.name, "type": cell_type, "format": format, "priority": priority, "description": column.description})
}

/// Cells of one object at wall time `now_ms`, one per column.
#[must_use]
pub fn cells(kind: &Kind, object: &Value, now_ms: u64) -> Vec<Value> {
    (crate::hooks::of(kind).printer.cells)(object, i64::try_from(now_ms / 1000).unwrap_or(i64::MAX))
}

/// One row. `object` has its type and revision.
#[must_use]
pub fn row(kind: &Kind, object: &Value, now_ms: u64, include: IncludeObject) -> Value {
    let cells = cells(kind, object, now_ms);
    let carried = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => partial_metadata(object),
    };
    Value::Object([("cells".to_owned(), cells.into()), ("object".to_owned(), carried)].into_iter().collect())
}

/// `PartialObjectMetadata` of an object.
#[must_use]
pub fn partial_metadata(object: &Value) -> Value {
    let metadata = place::get(object, &["metadata"]).cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// Whether a table carries its column definitions: only the first event of a watch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definitions {
    /// They are there.
    Shown,
    /// The list is empty.
    Omitted,
}

/// A table of `rows`; `list_metadata` holds the list's resourceVersion, continue and remainingItemCount.
#[must_use]
pub fn table(kind: &Kind, definitions: Definitions, list_metadata: Value, rows: Vec<Value>) -> Value {
    let columns = match definitions {
        Definitions::Shown => columns(kind),
        Definitions::Omitted => json!([]),
    };
    let mut table = json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": columns});
    place::set(&mut table, &["metadata"], list_metadata);
    place::set(&mut table, &["rows"], rows);
    table
}

// ---- cells that many kinds share ----

pub(crate) fn name(object: &Value) -> Value {
    place::text_or_empty(object, &["metadata", "name"]).into()
}

pub(crate) fn created_at(object: &Value) -> Value {
    place::text_or_empty(object, &["metadata", "creationTimestamp"]).into()
}

pub(crate) fn age(object: &Value, now: i64) -> Value {
    since(place::text(object, &["metadata", "creationTimestamp"]), now).into()
}

/// Time since a timestamp, `<unknown>` without one.
pub(crate) fn since(timestamp: Option<&str>, now: i64) -> String {
    timestamp
        .and_then(unix_seconds)
        .map_or_else(|| "<unknown>".to_owned(), |then| duration_text(now.saturating_sub(then)))
}

pub(crate) fn cell(object: &Value, path: &[&str]) -> Value {
    place::text_or_empty(object, path).into()
}

/// The text at `path`, or `fallback` where there is none.
pub(crate) fn cell_or(object: &Value, path: &[&str], fallback: &str) -> Value {
    place::text(object, path).filter(|text| !text.is_empty()).unwrap_or(fallback).into()
}

pub(crate) fn count(object: &Value, path: &[&str]) -> Value {
    place::int(object, path).unwrap_or(0).into()
}

/// Texts joined by commas, `<none>` where there are none.
pub(crate) fn joined<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    let mut out = String::new();
    for text in texts {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(text.as_ref());
    }
    if out.is_empty() { "<none>".to_owned() } else { out }
}

/// A map of labels as a selector text.
pub(crate) fn labels_text(labels: Option<&Value>) -> String {
    let pairs = labels.and_then(Value::as_object).into_iter().flatten();
    joined(pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())))
}

#[cfg(test)]
mod tests;
