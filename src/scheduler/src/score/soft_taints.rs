//! Taints `PreferNoSchedule` are avoided where that is possible.

use crate::filter::Candidate;

pub(super) fn cost(candidate: &Candidate<'_>, _home: Option<&str>) -> u64 {
    let untolerated = candidate.node.taints.iter().filter(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        let mut tolerations = candidate.pod.tolerations.iter();
        taint.effect == "PreferNoSchedule"
            && !tolerations.any(|toleration| toleration.accepts(&taint.key, value, &taint.effect))
    });
    untolerated.count() as u64
}
