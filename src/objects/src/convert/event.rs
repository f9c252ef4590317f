//! Events: the same fields under two sets of names.

use serde_json::{Map, Value};

/// Name in `events.k8s.io`, name in the core group.
const NAMES: &[(&str, &str)] = &[
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];

pub(super) fn to_core(event: &mut Map<String, Value>) {
    for (served, stored) in NAMES {
        rename(event, served, stored);
    }
}

pub(super) fn from_core(event: &mut Map<String, Value>) {
    for (served, stored) in NAMES {
        rename(event, stored, served);
    }
}

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}
