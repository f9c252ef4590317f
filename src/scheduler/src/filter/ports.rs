//! Ports of the node are exclusive.

use super::Candidate;

pub(super) fn refuse(candidate: &Candidate<'_>) -> Option<String> {
    let any = |address: &str| address.is_empty() || address == "0.0.0.0";
    let taken = candidate.pod.host_ports.iter().any(|(protocol, address, port)| {
        candidate.ledger.ports.iter().any(|(held_protocol, held_address, held_port)| {
            protocol == held_protocol
                && port == held_port
                && (address == held_address || any(address) || any(held_address))
        })
    });
    taken.then(|| "node(s) didn't have free ports for the requested pod ports".to_owned())
}
