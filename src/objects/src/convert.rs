//! Conversion between a served version and the version objects are stored in, where two resources share one store.
//!
//! Two pairs exist: Events of `events.k8s.io` stored as core Events, and `autoscaling/v1` autoscalers stored as `autoscaling/v2`. All
//! other kinds are stored as served. What an older version has no field for travels in annotations, as upstream.

mod autoscaler;
mod event;

use serde_json::{Map, Value};

use crate::kind::{Kind, api_version};

/// The pairs with a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// Served as stored.
    None,
    /// `events.k8s.io/v1` Event.
    Event,
    /// `autoscaling/v1` HorizontalPodAutoscaler.
    Autoscaler,
}

impl Conversion {
    /// What lies between `kind` and its store.
    pub fn of(kind: &Kind) -> Self {
        if kind.storage_group == kind.group && kind.storage_version == kind.version {
            return Self::None;
        }
        match &*kind.kind {
            "Event" => Self::Event,
            "HorizontalPodAutoscaler" => Self::Autoscaler,
            _ => Self::None,
        }
    }
}

/// Turns an object as served into the object as stored.
pub fn to_stored(kind: &Kind, object: &mut Value) {
    if let Some(map) = open(kind, object, &kind.storage_group, &kind.storage_version) {
        match Conversion::of(kind) {
            Conversion::None => {}
            Conversion::Event => event::to_core(map),
            Conversion::Autoscaler => autoscaler::to_v2(map),
        }
    }
}

/// Turns an object as stored into the object as served.
pub fn to_served(kind: &Kind, object: &mut Value) {
    if let Some(map) = open(kind, object, &kind.group, &kind.version) {
        match Conversion::of(kind) {
            Conversion::None => {}
            Conversion::Event => event::from_core(map),
            Conversion::Autoscaler => autoscaler::to_v1(map),
        }
    }
}

/// The fields of an object that needs converting, its `apiVersion` already the new one.
fn open<'a>(kind: &Kind, object: &'a mut Value, group: &str, version: &str) -> Option<&'a mut Map<String, Value>> {
    if Conversion::of(kind) == Conversion::None {
        return None;
    }
    let map = object.as_object_mut()?;
    if let Some(present) = map.get_mut("apiVersion") {
        *present = api_version(group, version).into();
    }
    Some(map)
}

/// The member `key`, made an object where it is absent.
fn section<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.entry(key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

#[cfg(test)]
mod tests;
