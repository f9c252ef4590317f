//! `nodeSelector` and required node affinity.

use super::Candidate;
use crate::pod::Term;

pub(super) fn refuse(candidate: &Candidate<'_>) -> Option<String> {
    let Candidate { pod, node, .. } = candidate;
    let selected = pod.node_selector.iter().all(|(label, value)| node.labels.get(label) == Some(value));
    // A term without requirements matches nothing.
    let holds = |term: &Term| {
        let labels = term.labels.iter().all(|wanted| wanted.holds(node.labels.get(&wanted.key).map(String::as_str)));
        let fields = term.fields.iter().all(|wanted| wanted.key == "metadata.name" && wanted.holds(Some(&node.name)));
        (!term.labels.is_empty() || !term.fields.is_empty()) && labels && fields
    };
    let attracted = pod.node_terms.as_ref().is_none_or(|terms| terms.iter().any(holds));
    (!selected || !attracted).then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}
