//! Cordoned nodes take only Pods that tolerate it.

use super::Candidate;

pub(super) fn refuse(candidate: &Candidate<'_>) -> Option<String> {
    let tolerated = || {
        let mut tolerations = candidate.pod.tolerations.iter();
        tolerations.any(|toleration| toleration.accepts("node.kubernetes.io/unschedulable", "", "NoSchedule"))
    };
    (candidate.node.cordoned && !tolerated()).then(|| "node(s) were unschedulable".to_owned())
}
