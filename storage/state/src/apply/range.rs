//! Delete-ranges: which keys one deletes, and where a further one has to go on.

use bytes::Bytes;
use quilt_proto::state::{DeleteRange, DeletedRange, op};
use quilt_proto::{Key, Op};

use crate::apply::txn::live;
use crate::limits::{RANGE_BYTES_MAX, RANGE_KEYS_SEEN_MAX};
use crate::machine::{ApplyError, Facts};
use crate::pending::{Head, Pending};
use crate::store::{Step, Store};

/// What one delete-range deletes.
pub(super) struct Doomed {
    /// In key order.
    pub(super) heads: Vec<(Key, Head)>,
    next: Option<Bytes>,
}

impl Doomed {
    /// What its asker is told.
    pub(super) fn told(&self) -> DeletedRange {
        let deleted = u32::try_from(self.heads.len()).unwrap_or(u32::MAX);
        DeletedRange { deleted, next: self.next.clone().unwrap_or_default() }
    }
}

/// The keys that a delete-range finds; `None` for another operation. One that has expired is absent already, and left to be
/// swept. It ends early at a limit, of which there are three, and depends on nothing but the state.
pub(super) fn doomed<S: Store + ?Sized>(
    facts: &Facts,
    pending: &Pending<'_, S>,
    op: &Op,
) -> Result<Option<Doomed>, ApplyError> {
    let Some(op::Kind::DeleteRange(DeleteRange { from, to, limit })) = &op.kind else { return Ok(None) };
    let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
    let mut heads = Vec::new();
    let (mut seen, mut bytes, mut next) = (0, 0, None);
    let mut failure = None;
    pending.newest_versions(from, to, &mut |key, value| {
        if heads.len() >= limit || seen >= RANGE_KEYS_SEEN_MAX || bytes > RANGE_BYTES_MAX {
            next = Some(Bytes::copy_from_slice(key));
            return Step::Stop;
        }
        seen += 1;
        match head(facts, key, value) {
            Ok(None) => {}
            Ok(Some(head)) => {
                bytes += value.len();
                heads.push(head);
            }
            Err(error) => {
                failure = Some(error);
                return Step::Stop;
            }
        }
        Step::Next
    })?;
    failure.map_or(Ok(Some(Doomed { heads, next })), Err)
}

/// The latest version of a key, stored as `row`, if it is there.
fn head(facts: &Facts, key: &[u8], row: &[u8]) -> Result<Option<(Key, Head)>, ApplyError> {
    let Some(head) = Head::stored(key, Bytes::copy_from_slice(row))? else { return Ok(None) };
    if live(facts, Some(&head)).is_none() {
        return Ok(None);
    }
    let key = Key::from_bytes(Bytes::copy_from_slice(key));
    Ok(Some((key.map_err(|_| ApplyError::Broken("a version row names no key"))?, head)))
}

/// Whether no key goes on where a bound ends: rows continue there, and would be taken for what lies behind the key.
fn is_bound(bound: &[u8]) -> bool {
    match bound.iter().filter(|byte| **byte == 0).count() {
        0..=4 => true,
        5 => bound.ends_with(&[0]),
        _ => false,
    }
}

/// The clusters that ranges lie in, once it is sure that each lies in one, is not empty, and meets neither another nor a
/// key that the transaction writes.
pub(super) fn clusters(ranges: &[&DeleteRange], keys: &[Key]) -> Result<Vec<String>, String> {
    let mut clusters = Vec::with_capacity(ranges.len());
    for range in ranges {
        if range.limit == 0 {
            return Err("delete-range with a limit of 0 keys".into());
        }
        if range.from.len() > Key::BYTES_MAX || range.to.len() > Key::BYTES_MAX {
            return Err(format!("delete-range with a bound longer than a key, which has {} bytes", Key::BYTES_MAX));
        }
        if !is_bound(&range.from) || !is_bound(&range.to) {
            return Err("delete-range with a bound that goes on behind a key".into());
        }
        if range.from >= range.to {
            return Err("delete-range that ends before it begins".into());
        }
        let begin = range.from.split(|byte| *byte == 0).next().unwrap_or_default();
        // Every key of the cluster begins with its id and a zero byte: behind them all is the id with a one.
        let end = [begin, &[1]].concat();
        if begin.len() == range.from.len() || *range.to > *end {
            return Err("delete-range that is not within one cluster".into());
        }
        let cluster =
            std::str::from_utf8(begin).map_err(|_| "delete-range in a cluster that is not text".to_owned())?;
        if let Some(key) = keys.iter().find(|key| range.from <= *key.bytes() && *key.bytes() < range.to) {
            return Err(format!("transaction writes {key:?}, which lies in a range that it deletes"));
        }
        clusters.push(cluster.to_owned());
    }
    let mut sorted: Vec<_> = ranges.iter().map(|range| (&range.from, &range.to)).collect();
    sorted.sort();
    if sorted.windows(2).any(|pair| matches!(pair, [(_, end), (begin, _)] if begin < end)) {
        return Err("delete-ranges that overlap".into());
    }
    Ok(clusters)
}

#[cfg(test)]
mod tests {
    use quilt_proto::KeyPrefix;

    use super::*;

    /// A range lies in one cluster, which may be the tenants', and nothing else in the transaction touches it.
    #[test]
    fn ranges_keep_to_themselves() {
        let of = |from: &[u8], to: &[u8]| DeleteRange {
            from: Bytes::copy_from_slice(from),
            to: Bytes::copy_from_slice(to),
            limit: 1,
        };
        let judge = |ranges: &[DeleteRange], keys: &[Key]| clusters(&ranges.iter().collect::<Vec<_>>(), keys);
        let under = |prefix: KeyPrefix| of(prefix.bytes(), &prefix.end());
        let cluster = |name: &str| under(KeyPrefix::cluster(name).expect("valid"));
        let things = |name: &str| under(KeyPrefix::resource("a", "", name).expect("valid"));
        let key = |resource: &str| Key::new("a", "", resource, "", "x").expect("valid");
        assert_eq!(judge(&[cluster("a")], &[]), Ok(vec!["a".into()]));
        assert_eq!(judge(&[cluster("")], &[]), Ok(vec!["".into()]));
        assert_eq!(judge(&[things("x"), things("y")], &[key("z")]).map(|found| found.len()), Ok(2));
        assert!(judge(&[things("x"), things("x")], &[]).is_err(), "they overlap");
        assert!(judge(&[things("x")], &[key("x")]).is_err(), "a key lies in it");
        assert!(judge(&[of(b"a\0", b"b\x01")], &[]).is_err(), "it spans clusters");
        assert!(judge(&[of(b"", b"a")], &[]).is_err(), "it begins in no cluster");
        assert!(judge(&[of(b"a", b"a\x01")], &[]).is_err(), "it begins in none either");
        assert!(judge(&[of(b"a\0b", b"a\0a")], &[]).is_err(), "it is empty");
        assert!(judge(&[of(b"a\0\0x\0\0k\0\0", b"a\0\0x\0\0l")], &[]).is_err(), "it begins behind a key");
        assert!(judge(&[of(b"a\0\0x\0\0k", b"a\0\0x\0\0l")], &[]).is_ok(), "names that begin so");
        assert!(judge(&[DeleteRange { limit: 0, ..cluster("a") }], &[]).is_err(), "it says no limit");
    }
}
