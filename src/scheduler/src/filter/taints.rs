//! Taints `NoSchedule` and `NoExecute` keep away Pods that do not tolerate them.

use super::Candidate;

pub(super) fn refuse(candidate: &Candidate<'_>) -> Option<String> {
    let hard = |effect: &str| effect == "NoSchedule" || effect == "NoExecute";
    let untolerated = candidate.node.taints.iter().find(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        let mut tolerations = candidate.pod.tolerations.iter();
        hard(&taint.effect) && !tolerations.any(|toleration| toleration.accepts(&taint.key, value, &taint.effect))
    })?;
    let value = untolerated.value.as_deref().unwrap_or_default();
    Some(format!("node(s) had untolerated taint {{{}: {value}}}", untolerated.key))
}
