//! Whole-state checks: after every apply in tests, on demand elsewhere. They only read, and hold no more than a page of
//! rows in memory.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use quilt_proto::Record;
use quilt_proto::state::{Change, MachineState};

use crate::hash::StateHash;
use crate::machine::ApplyError;
use crate::row;
use crate::store::{Family, Store, for_each_row};

/// More are not worth reading.
const VIOLATIONS_MAX: usize = 100;

/// Checks that the rows agree with each other. Returns the violations found, readable, up to a hundred.
///
/// # Errors
/// The store cannot be read, or a row cannot be decoded.
pub fn violations<S: Store + ?Sized>(store: &S) -> Result<Vec<String>, ApplyError> {
    let mut found = Vec::new();
    let machine = match store.get(Family::Meta, row::MACHINE)? {
        Some(bytes) => MachineState::decode(bytes)?,
        None => MachineState::default(),
    };
    let hash = versions(store, &machine, &mut found)?;
    if hash != StateHash::from_halves(machine.hash_high, machine.hash_low) {
        found.push("the hash of live rows differs from the kept one".into());
    }
    changes(store, &mut found)?;
    found.truncate(VIOLATIONS_MAX);
    Ok(found)
}

/// Checks versions and expiry rows against each other, and gives the hash of all live rows.
fn versions<S: Store + ?Sized>(
    store: &S,
    machine: &MachineState,
    found: &mut Vec<String>,
) -> Result<StateHash, ApplyError> {
    let mut hash = StateHash::default();
    let mut newest: Option<Bytes> = None;
    let (mut live_keys, mut expiring, mut expiry_rows) = (0_u64, 0_u64, 0_u64);
    for_each_row(store, Family::Versions, |row_key, value| {
        let Some((key, revision)) = row::split_version(row_key) else {
            return note(found, "a version row has a malformed key".into());
        };
        if revision.get() > machine.revision {
            note(found, format!("version {revision} lies ahead of revision {}", machine.revision))?;
        }
        if newest.as_deref() == Some(key) {
            return Ok(());
        }
        newest = Some(Bytes::copy_from_slice(key));
        if value.is_empty() {
            return Ok(());
        }
        hash.add(Family::Versions, key, &value);
        live_keys += 1;
        let record = Record::decode(value)?;
        if record.mod_revision != revision.get() {
            note(found, format!("record at {revision} says mod revision {}", record.mod_revision))?;
        }
        if record.expires_at_ms != 0 {
            expiring += 1;
            if store.get(Family::Expiry, &row::expiry(record.expires_at_ms, key))?.is_none() {
                note(found, format!("the key changed at {revision} expires, and no expiry row says so"))?;
            }
        }
        Ok::<_, ApplyError>(())
    })?;
    for_each_row(store, Family::Expiry, |_, _| {
        expiry_rows += 1;
        Ok::<_, ApplyError>(())
    })?;
    if expiry_rows != expiring {
        found.push(format!("{expiry_rows} expiry rows for {expiring} keys that expire"));
    }
    if live_keys != machine.live_keys {
        found.push(format!("{live_keys} keys are there, {} were counted", machine.live_keys));
    }
    for_each_row(store, Family::Sessions, |key, value| {
        hash.add(Family::Sessions, key, &value);
        Ok::<_, ApplyError>(())
    })?;
    Ok(hash)
}

/// Checks that history leads to versions that are there; that of a dropped cluster leads nowhere once it is being swept.
fn changes<S: Store + ?Sized>(store: &S, found: &mut Vec<String>) -> Result<(), ApplyError> {
    let mut dropped = BTreeSet::new();
    for_each_row(store, Family::Meta, |key, _| {
        dropped.extend(row::split_dropped(key).map(str::to_owned));
        Ok::<_, ApplyError>(())
    })?;
    for_each_row(store, Family::Changes, |row_key, value| {
        let Some((cluster, revision)) = row::split_change(row_key) else {
            return note(found, "a change row has a malformed key".into());
        };
        if std::str::from_utf8(cluster).is_ok_and(|cluster| dropped.contains(cluster)) {
            return Ok(());
        }
        let change = Change::decode(value)?;
        let revisions = [revision.get(), change.previous_revision];
        for named in revisions.into_iter().filter(|revision| *revision != 0) {
            if store.get(Family::Versions, &row::version(&change.key, named.into()))?.is_none() {
                note(found, format!("change at {revision} names version {named}, which is missing"))?;
            }
        }
        Ok::<_, ApplyError>(())
    })
}

/// Keeps a violation; a state with very many is damaged all over, and the list stays bounded.
#[allow(clippy::unnecessary_wraps, reason = "the shape of a visitor's answer")]
fn note(found: &mut Vec<String>, violation: String) -> Result<(), ApplyError> {
    if found.len() < VIOLATIONS_MAX {
        found.push(violation);
    }
    Ok(())
}
