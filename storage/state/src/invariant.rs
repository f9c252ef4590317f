//! Whole-state checks: after every apply in tests, on demand elsewhere. They only read.

use bytes::Bytes;
use prost::Message;
use quilt_proto::Record;
use quilt_proto::state::{Change, MachineState};

use crate::hash::StateHash;
use crate::machine::ApplyError;
use crate::row;
use crate::store::{Family, Step, Store};

/// Checks that the rows agree with each other. Returns every violation found, readable.
///
/// # Errors
/// The store cannot be read, or a row cannot be decoded.
pub fn violations<S: Store + ?Sized>(store: &S) -> Result<Vec<String>, ApplyError> {
    let mut found = Vec::new();
    let all = |family| -> Result<Vec<(Bytes, Bytes)>, ApplyError> {
        let mut rows = Vec::new();
        store.scan(family, &[], &[0xff; 64], &mut |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            Step::Next
        })?;
        Ok(rows)
    };
    let machine = match store.get(Family::Meta, row::MACHINE)? {
        Some(bytes) => MachineState::decode(bytes)?,
        None => MachineState::default(),
    };
    let mut hash = StateHash::default();
    let mut newest: Option<Bytes> = None;
    let mut expiring = Vec::new();
    for (row_key, value) in all(Family::Versions)? {
        let Some((key, revision)) = row::split_version(&row_key) else {
            found.push("a version row has a malformed key".into());
            continue;
        };
        if revision.get() > machine.revision {
            found.push(format!("version {revision} lies ahead of revision {}", machine.revision));
        }
        if newest.as_deref() != Some(key) {
            newest = Some(Bytes::copy_from_slice(key));
            if !value.is_empty() {
                hash.add(Family::Versions, key, &value);
                let record = Record::decode(value)?;
                if record.mod_revision != revision.get() {
                    found.push(format!("record at {revision} says mod revision {}", record.mod_revision));
                }
                if record.expires_at_ms != 0 {
                    expiring.push(row::expiry(record.expires_at_ms, key));
                }
            }
        }
    }
    for (key, value) in all(Family::Sessions)? {
        hash.add(Family::Sessions, &key, &value);
    }
    if hash != StateHash::from_halves(machine.hash_high, machine.hash_low) {
        found.push("the hash of live rows differs from the kept one".into());
    }
    expiring.sort();
    let rows: Vec<Bytes> = all(Family::Expiry)?.into_iter().map(|(key, _)| key).collect();
    if rows != expiring {
        found.push(format!("{} expiry rows for {} keys that expire", rows.len(), expiring.len()));
    }
    for (row_key, value) in all(Family::Changes)? {
        let Some((_, revision)) = row::split_change(&row_key) else {
            found.push("a change row has a malformed key".into());
            continue;
        };
        let change = Change::decode(value)?;
        let revisions = [revision.get(), change.previous_revision];
        for named in revisions.into_iter().filter(|revision| *revision != 0) {
            if store.get(Family::Versions, &row::version(&change.key, named.into()))?.is_none() {
                found.push(format!("change at {revision} names version {named}, which is missing"));
            }
        }
    }
    Ok(found)
}
