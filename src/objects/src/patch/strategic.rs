//! Strategic merge patches: like merge patches, but lists merge as the type says, and directives in the patch steer it.
//!
//! | directive | where | effect |
//! |---|---|---|
//! | `$patch: replace`, `delete`, `merge` | object | the object is replaced, emptied, merged |
//! | `$patch: delete` | item of a merged list | the item with that merge key goes |
//! | `$patch: replace` | item of a merged list | the list is replaced by the other items of the patch |
//! | `$retainKeys` | object | keys not named go |
//! | `$setElementOrder/x` | object | order of the merged list `x` |
//! | `$deleteFromPrimitiveList/x` | object | values that leave the list `x` |

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, Node, PatchStrategy, Shape};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of the type at `node`.
pub fn apply(node: Node<'_>, current: &Value, patch: Value) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (current.clone(), patch) else {
        return Err(PatchError::Malformed("a strategic merge patch is a JSON object".to_owned()));
    };
    merge_object(Some(node), original, patch).map(Value::Object)
}

/// What is known about a member of an object.
struct Member<'a> {
    field: Option<&'a Field>,
    node: Option<Node<'a>>,
}

impl<'a> Member<'a> {
    fn of(node: Option<Node<'a>>, key: &str) -> Self {
        let Some(node) = node else { return Self { field: None, node: None } };
        match node.shape() {
            Shape::Object(object) => {
                let field = object.field(key);
                Self { field, node: field.map(|field| node.at(field.ty)) }
            }
            Shape::Map(element) => Self { field: None, node: Some(node.at(*element)) },
            _ => Self { field: None, node: None },
        }
    }

    fn strategy(&self) -> Option<&'a PatchStrategy> {
        self.field.map(|field| &field.patch)
    }

    fn merges(&self) -> bool {
        self.strategy().is_some_and(|strategy| strategy.merge)
    }

    fn list(&self) -> List<'a> {
        List {
            element: self.node.and_then(Node::element),
            merge_key: self.strategy().map_or("", |strategy| &strategy.merge_key),
            keys: match self.field.and_then(|field| field.list_type.as_ref()) {
                Some(crate::schema::ListType::Map(keys)) => keys.iter().map(|key| &**key).collect(),
                _ => Vec::new(),
            },
        }
    }
}

fn merge_object(
    node: Option<Node<'_>>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match directive(&mut patch)? {
        Some(Directive::Replace) => return Ok(cleaned_object(patch)),
        Some(Directive::Delete) => return Ok(Map::new()),
        Some(Directive::Merge) | None => {}
    }
    retain_keys(&mut original, &mut patch)?;
    order_lists(node, &mut original, &mut patch)?;
    for (key, value) in patch {
        if let Some(key) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut original, key, &value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let member = Member::of(node, &key);
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                if member.strategy().is_some_and(|strategy| strategy.replace) {
                    Value::Object(cleaned_object(new))
                } else {
                    Value::Object(merge_object(member.node, old, new)?)
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) if member.merges() => {
                Value::Array(member.list().merge(&key, old, new, None)?)
            }
            (_, new) => cleaned(new),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

enum Directive {
    Replace,
    Delete,
    Merge,
}

fn directive(patch: &mut Map<String, Value>) -> Result<Option<Directive>, PatchError> {
    match patch.remove(PATCH) {
        None => Ok(None),
        Some(Value::String(text)) => match text.as_str() {
            "replace" => Ok(Some(Directive::Replace)),
            "delete" => Ok(Some(Directive::Delete)),
            "merge" => Ok(Some(Directive::Merge)),
            _ => Err(PatchError::Malformed(format!("unknown $patch directive {text:?}"))),
        },
        Some(other) => Err(PatchError::Malformed(format!("$patch must be a string, got {other}"))),
    }
}

fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let keys: HashSet<String> = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(keys)) => keys
            .into_iter()
            .map(|key| match key {
                Value::String(key) => Ok(key),
                other => Err(PatchError::Malformed(format!("{RETAIN_KEYS} must hold strings, got {other}"))),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(PatchError::Malformed(format!("{RETAIN_KEYS} must be a list, got {other}"))),
    };
    let stray = patch.iter().find(|(key, value)| {
        !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER) && !keys.contains(*key)
    });
    if let Some((key, _)) = stray {
        return Err(PatchError::Malformed(format!("{RETAIN_KEYS} does not name {key:?}, which the patch sets")));
    }
    original.retain(|key, _| keys.contains(key));
    Ok(())
}

/// Merges the lists that come with an order of their own; they and their directives leave the patch.
fn order_lists(
    node: Option<Node<'_>>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let orders: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for order_key in orders {
        let key = order_key.strip_prefix(SET_ORDER).unwrap_or_default();
        let Some(Value::Array(order)) = patch.remove(&order_key) else {
            return Err(PatchError::Malformed(format!("{order_key} must be a list")));
        };
        let member = Member::of(node, key);
        if !member.merges() {
            return Err(PatchError::Malformed(format!("{order_key}: the list {key} does not merge")));
        }
        let list = member.list();
        if let Some(deleted) = patch.remove(&format!("{DELETE_FROM}{key}")) {
            delete_from(original, key, &deleted)?;
        }
        let new = match patch.get(key) {
            Some(Value::Array(_)) => match patch.remove(key) {
                Some(Value::Array(new)) => new,
                _ => Vec::new(),
            },
            // A null removes the list, whatever its order was to be.
            Some(_) => continue,
            None => Vec::new(),
        };
        let old = match original.remove(key) {
            Some(Value::Array(old)) => old,
            Some(other) if new.is_empty() => {
                original.insert(key.to_owned(), other);
                continue;
            }
            None if new.is_empty() => continue,
            _ => Vec::new(),
        };
        let merged = list.merge(key, old, new, Some(&order))?;
        original.insert(key.to_owned(), Value::Array(merged));
    }
    Ok(())
}

fn delete_from(original: &mut Map<String, Value>, key: &str, values: &Value) -> Result<(), PatchError> {
    let Value::Array(values) = values else {
        return Err(PatchError::Malformed(format!("{DELETE_FROM}{key} must be a list")));
    };
    let gone: HashSet<String> = values.iter().map(Value::to_string).collect();
    if let Some(Value::Array(items)) = original.get_mut(key) {
        items.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

/// How one list merges.
struct List<'a> {
    element: Option<Node<'a>>,
    /// Key that identifies items; empty for lists of scalars.
    merge_key: &'a str,
    /// All keys that identify items where field ownership is concerned, the merge key among them.
    keys: Vec<&'a str>,
}

impl List<'_> {
    /// Merges `new` into `old`; items named by `order` (by default those of `new`) come in that order, others keep theirs.
    fn merge(
        &self,
        name: &str,
        old: Vec<Value>,
        new: Vec<Value>,
        order: Option<&[Value]>,
    ) -> Result<Vec<Value>, PatchError> {
        let server_order = self.positions(&old);
        let (old, new) =
            if self.merge_key.is_empty() { (old, new) } else { self.apply_item_directives(name, old, new)? };
        let wanted_order = self.positions(order.unwrap_or(&new));
        let merged =
            if self.merge_key.is_empty() { merge_scalars(old, new) } else { self.merge_items(name, old, new)? };
        Ok(self.arrange(merged, &wanted_order, &server_order))
    }

    fn identity(&self, item: &Value) -> String {
        if self.merge_key.is_empty() {
            item.to_string()
        } else {
            item.get(self.merge_key).map(Value::to_string).unwrap_or_default()
        }
    }

    /// First position of each item.
    fn positions(&self, items: &[Value]) -> HashMap<String, usize> {
        let mut positions = HashMap::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            positions.entry(self.identity(item)).or_insert(at);
        }
        positions
    }

    /// Carries out `$patch` in items: deleted items leave `old`, a replace makes the rest of `new` all there is.
    fn apply_item_directives(
        &self,
        name: &str,
        mut old: Vec<Value>,
        new: Vec<Value>,
    ) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
        let mut rest = Vec::with_capacity(new.len());
        let mut gone = HashSet::new();
        let mut replace = false;
        for mut item in new {
            let Value::Object(map) = &mut item else {
                return Err(PatchError::Unprocessable(format!("the list {name} holds objects, the patch has {item}")));
            };
            match directive(map)? {
                None | Some(Directive::Merge) => rest.push(item),
                Some(Directive::Replace) => replace = true,
                Some(Directive::Delete) => {
                    self.require_key(name, &item)?;
                    gone.insert(self.identity(&item));
                }
            }
        }
        if replace {
            return Ok((Vec::new(), rest));
        }
        old.retain(|item| !gone.contains(&self.identity(item)));
        Ok((old, rest))
    }

    fn require_key(&self, name: &str, item: &Value) -> Result<(), PatchError> {
        if item.get(self.merge_key).is_some_and(|key| !key.is_null()) {
            return Ok(());
        }
        Err(PatchError::Unprocessable(format!("an item of the list {name} lacks its merge key {:?}", self.merge_key)))
    }

    fn merge_items(&self, name: &str, mut merged: Vec<Value>, new: Vec<Value>) -> Result<Vec<Value>, PatchError> {
        let mut by_key: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, item) in merged.iter().enumerate() {
            by_key.entry(self.identity(item)).or_default().push(at);
        }
        for item in new {
            self.require_key(name, &item)?;
            let key = self.identity(&item);
            let place = by_key.get(&key).and_then(|places| self.best(&merged, places, &item));
            match (place.and_then(|at| merged.get_mut(at)), item) {
                (Some(slot), Value::Object(patch)) => {
                    let old = match std::mem::take(slot) {
                        Value::Object(old) => old,
                        _ => Map::new(),
                    };
                    *slot = Value::Object(merge_object(self.element, old, patch)?);
                }
                (_, item) => {
                    by_key.entry(key).or_default().push(merged.len());
                    merged.push(cleaned(item));
                }
            }
        }
        Ok(merged)
    }

    /// Of several items with the merge key, the one that agrees in all other keys the patch names; else the first.
    fn best(&self, items: &[Value], places: &[usize], patch: &Value) -> Option<usize> {
        let agrees = |at: &&usize| {
            let item = items.get(**at);
            self.keys
                .iter()
                .all(|key| patch.get(*key).is_none_or(|wanted| item.and_then(|item| item.get(*key)) == Some(wanted)))
        };
        places.iter().find(agrees).or_else(|| places.first()).copied()
    }

    /// Items of the wanted order first among themselves, the others put between them where the server had them.
    fn arrange(
        &self,
        merged: Vec<Value>,
        wanted: &HashMap<String, usize>,
        server: &HashMap<String, usize>,
    ) -> Vec<Value> {
        let mut ordered = Vec::new();
        let mut others = Vec::new();
        for item in merged {
            let identity = self.identity(&item);
            let server_place = server.get(&identity).copied().unwrap_or(usize::MAX);
            match wanted.get(&identity) {
                Some(place) => ordered.push((*place, server_place, item)),
                None => others.push((server_place, item)),
            }
        }
        ordered.sort_by_key(|(place, ..)| *place);
        others.sort_by_key(|(place, _)| *place);
        let mut arranged = Vec::with_capacity(ordered.len() + others.len());
        let mut others = others.into_iter().peekable();
        for (_, server_place, item) in ordered {
            // An item only the server knows goes before the first wanted item that stood after it.
            while let Some((_, other)) =
                others.next_if(|(place, _)| server_place != usize::MAX && *place < server_place)
            {
                arranged.push(other);
            }
            arranged.push(item);
        }
        arranged.extend(others.map(|(_, item)| item));
        arranged
    }
}

/// Both lists, each value once.
fn merge_scalars(mut old: Vec<Value>, new: Vec<Value>) -> Vec<Value> {
    old.extend(new);
    let mut seen = HashSet::new();
    old.retain(|item| seen.insert(item.to_string()));
    old
}

/// What a patch value adds where there was nothing: without nulls and directives.
fn cleaned(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(cleaned_object(map)),
        Value::Array(items) => Value::Array(
            items
                .into_iter()
                .filter(|item| !matches!(item.get(PATCH).and_then(Value::as_str), Some("delete" | "replace")))
                .map(cleaned)
                .collect(),
        ),
        other => other,
    }
}

fn cleaned_object(map: Map<String, Value>) -> Map<String, Value> {
    let is_directive =
        |key: &str| key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM);
    map.into_iter()
        .filter(|(key, value)| !value.is_null() && !is_directive(key))
        .map(|(key, value)| (key, cleaned(value)))
        .collect()
}
