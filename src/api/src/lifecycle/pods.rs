//! Pods: deleted with grace once bound, woken by their node.

use quilt_objects::place;
use serde_json::Value;

use super::Deletion;
use crate::problem::Problem;

/// Grace when neither the request nor the Pod names one.
const GRACE_SECONDS: u64 = 30;

/// A Pod that no node runs yet, or that has ended, goes at once; else its node is given the grace to end it.
pub(super) fn deletion(pod: &Value, asked: Option<u64>) -> Result<Deletion, Problem> {
    let own = place::int(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(|own| u64::try_from(own).ok());
    let grace_seconds = asked.or(own).unwrap_or(GRACE_SECONDS);
    let bound = !place::text_or_empty(pod, &["spec", "nodeName"]).is_empty();
    let ended = matches!(place::text_or_empty(pod, &["status", "phase"]), "Succeeded" | "Failed");
    Ok(if bound && !ended && grace_seconds > 0 { Deletion::Graceful { grace_seconds } } else { Deletion::Now })
}

/// A bound Pod wakes the watchers of its node.
pub(super) fn tags(pod: &Value) -> Vec<Vec<u8>> {
    let node = place::text_or_empty(pod, &["spec", "nodeName"]);
    if node.is_empty() { Vec::new() } else { vec![format!("n={node}").into_bytes()] }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Which Pods get a grace, and how much.
    #[test]
    fn grace() {
        let pod = |spec: Value, phase: &str| json!({"spec": spec, "status": {"phase": phase}});
        let graceful = |grace_seconds| Deletion::Graceful { grace_seconds };
        let cases = [
            (pod(json!({}), "Pending"), None, Deletion::Now),
            (pod(json!({"nodeName": "n"}), "Running"), None, graceful(30)),
            (pod(json!({"nodeName": "n", "terminationGracePeriodSeconds": 5}), "Running"), None, graceful(5)),
            (pod(json!({"nodeName": "n", "terminationGracePeriodSeconds": 5}), "Running"), Some(9), graceful(9)),
            (pod(json!({"nodeName": "n"}), "Running"), Some(0), Deletion::Now),
            (pod(json!({"nodeName": "n"}), "Succeeded"), None, Deletion::Now),
        ];
        for (pod, asked, expected) in cases {
            assert_eq!(deletion(&pod, asked).expect("a plan"), expected, "{pod} {asked:?}");
        }
        assert_eq!(tags(&json!({"spec": {"nodeName": "n1"}})), [b"n=n1".to_vec()]);
    }
}
