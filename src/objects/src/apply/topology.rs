//! How values are owned: as a whole, field by field, item by item. One walk shape for all operations, taken from the table.

use serde_json::{Map, Value};

use super::fields::FieldSet;
use crate::schema::{Field, ListType, Node, Shape};

/// A place in a type, with the field that led there.
#[derive(Clone, Copy)]
pub(super) struct Tree<'a> {
    field: Option<&'a Field>,
    /// `None` below content without a type.
    node: Option<Node<'a>>,
}

/// The way a value is owned.
pub(super) enum Topology<'a> {
    /// As a whole.
    Whole,
    /// Member by member.
    Members,
    /// List of objects, item by item, identified by these keys.
    Items(Vec<&'a str>),
    /// List of scalars, value by value.
    Values,
}

impl<'a> Tree<'a> {
    pub(super) fn root(node: Node<'a>) -> Self {
        Self { field: None, node: Some(node) }
    }

    pub(super) fn topology(self) -> Topology<'a> {
        let Some(node) = self.node else { return Topology::Whole };
        let atomic = node.ty().atomic || self.field.is_some_and(|field| field.atomic);
        match node.shape() {
            Shape::Object(_) | Shape::Map(_) if !atomic => Topology::Members,
            Shape::List(..) => match self.field.map(|field| (&field.list_type, &field.patch)) {
                Some((Some(ListType::Map(keys)), _)) => Topology::Items(keys.iter().map(|key| &**key).collect()),
                Some((Some(ListType::Set), _)) => Topology::Values,
                // Lists older than the list type say by their patch strategy how they merge.
                Some((None, patch)) if patch.merge && patch.merge_key.is_empty() => Topology::Values,
                Some((None, patch)) if patch.merge => Topology::Items(vec![&*patch.merge_key]),
                _ => Topology::Whole,
            },
            _ => Topology::Whole,
        }
    }

    /// The place of a member.
    pub(super) fn member(self, key: &str) -> Tree<'a> {
        let Some(node) = self.node else { return Tree { field: None, node: None } };
        match node.shape() {
            Shape::Object(object) => {
                let field = object.field(key);
                Tree { field, node: field.map(|field| node.at(field.ty)) }
            }
            Shape::Map(element) => Tree { field: None, node: Some(node.at(*element)) },
            _ => Tree { field: None, node: None },
        }
    }

    /// True for a declared field, false for the key of a map.
    pub(super) fn declares(self, key: &str) -> bool {
        self.node.and_then(Node::object).is_some_and(|object| object.field(key).is_some())
    }

    /// The place of list items.
    pub(super) fn item(self) -> Tree<'a> {
        Tree { field: None, node: self.node.and_then(Node::element) }
    }

    /// The step of an item identified by keys; a key with a default may be absent.
    pub(super) fn item_step(self, keys: &[&str], item: &Value) -> Result<String, String> {
        let element = self.item();
        let mut found = Map::new();
        for key in keys {
            let default = || element.member(key).field.and_then(|field| field.default.clone());
            if let Some(value) = item.get(*key).cloned().or_else(default) {
                found.insert((*key).to_owned(), value);
            }
        }
        if found.is_empty() {
            return Err(format!("an item of a list lacks its key {}", keys.join(", ")));
        }
        Ok(format!("k:{}", Value::Object(found)))
    }

    /// The fields a value sets.
    pub(super) fn owned(self, value: &Value) -> Result<FieldSet, String> {
        let mut set = FieldSet::default();
        match (self.topology(), value) {
            (Topology::Members, Value::Object(map)) => {
                for (key, member) in map {
                    let mut child = self.member(key).owned(member)?;
                    let bare = member.is_null() || member.as_object().is_some_and(Map::is_empty);
                    child.here |= bare || !self.declares(key);
                    set.put(format!("f:{key}"), child);
                }
            }
            (Topology::Items(keys), Value::Array(items)) => {
                for item in items {
                    let step = self.item_step(&keys, item)?;
                    let mut child = self.item().owned(item)?;
                    child.here = true;
                    if set.children.insert(step.clone(), child).is_some() {
                        return Err(format!(
                            "a list has two items with the same key {}",
                            step.trim_start_matches("k:")
                        ));
                    }
                }
            }
            (Topology::Values, Value::Array(items)) => {
                for item in items {
                    set.put(value_step(item), FieldSet::leaf());
                }
            }
            _ => set.here = true,
        }
        Ok(set)
    }
}

/// The step of a value in a set.
pub(super) fn value_step(value: &Value) -> String {
    format!("v:{value}")
}
