//! A client's transaction has one effect or none: never two, none when it was said to have none, and all of it or nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Facts, Invariant};
use crate::sight::{Ended, Sight};

struct Asked {
    values: Vec<Bytes>,
    ended: Option<Ended>,
}

#[derive(Default)]
pub(super) struct ExactlyOnce {
    requests: BTreeMap<u64, Asked>,
    /// By value: whose it is.
    owners: BTreeMap<Bytes, u64>,
    /// By value: where it took effect.
    effects: BTreeMap<Bytes, u64>,
}

impl ExactlyOnce {
    fn without_effect(&self, request: u64) -> Result<(), String> {
        let Some(asked) = self.requests.get(&request) else { return Ok(()) };
        if !matches!(asked.ended, Some(Ended::NotApplied | Ended::Rejected)) {
            return Ok(());
        }
        match asked.values.iter().find_map(|value| self.effects.get(value)) {
            Some(revision) => {
                let ended = &asked.ended;
                Err(format!("request {request} ended as {ended:?} and took effect at revision {revision}"))
            }
            None => Ok(()),
        }
    }
}

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly one effect"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &Facts) -> Result<(), String> {
        match sight {
            Sight::Asked { request, writes } => {
                let values: Vec<_> = writes.iter().filter_map(|write| write.value.clone()).collect();
                self.owners.extend(values.iter().map(|value| (value.clone(), *request)));
                self.requests.insert(*request, Asked { values, ended: None });
                Ok(())
            }
            Sight::Answered { request, ended } => {
                if let Some(asked) = self.requests.get_mut(request) {
                    asked.ended = Some(ended.clone());
                }
                self.without_effect(*request)
            }
            Sight::Applied { changes, .. } => {
                for (revision, changed) in *changes {
                    let Some(value) = &changed.value else { continue };
                    let Some(owner) = self.owners.get(value).copied() else {
                        return Err(format!("revision {revision} has a value that nobody wrote: {value:?}"));
                    };
                    let known = *self.effects.entry(value.clone()).or_insert(*revision);
                    if known != *revision {
                        return Err(format!("request {owner} took effect at revisions {known} and {revision}"));
                    }
                    self.without_effect(owner)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// All of a transaction, or nothing.
    fn close(&mut self) -> Result<(), String> {
        for (request, asked) in &self.requests {
            let done = asked.values.iter().filter(|value| self.effects.contains_key(*value)).count();
            if done != 0 && done != asked.values.len() {
                let all = asked.values.len();
                return Err(format!("of the {all} writes of request {request} only {done} took effect"));
            }
        }
        Ok(())
    }
}
