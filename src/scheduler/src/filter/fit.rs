//! What a Pod asks for must be free: Pods by number, CPU, memory and every other resource.

use super::Candidate;
use crate::resources::{GPU, PODS};

pub(super) fn refuse(candidate: &Candidate<'_>) -> Option<String> {
    let Candidate { pod, node, ledger } = candidate;
    if node.has(PODS).is_some_and(|most| ledger.pods >= most) {
        return Some("Too many pods".to_owned());
    }
    let short = |resource: &str, asked: i64| {
        let taken = ledger.requested.get(resource).unwrap_or_default();
        node.has(resource).is_some_and(|has| asked > has.saturating_sub(taken))
    };
    // Devices have their own filter, which knows them one by one.
    let mut asked = pod.requests.iter().filter(|(resource, _)| *resource != GPU);
    asked.find(|(resource, asked)| short(resource, *asked)).map(|(resource, _)| format!("Insufficient {resource}"))
}
