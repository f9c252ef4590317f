//! [`Groups`]: addresses of the API as Endpoints and EndpointSlices show them. Pure; must not know where they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::{MANAGED_BY, NAMESPACE, SERVICE};
use crate::store::{ENDPOINT_SLICES, ENDPOINTS, Shelf};

/// Says that no controller is to make slices out of the Endpoints.
pub(super) const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Addresses by what can stand in one slice: a family and a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups(BTreeMap<(bool, u16), BTreeSet<IpAddr>>);

impl Groups {
    /// Adds one address.
    pub(super) fn add(&mut self, address: SocketAddr) {
        self.0.entry((address.is_ipv6(), address.port())).or_default().insert(address.ip());
    }

    /// The Endpoints and the slices. Replicas that listen on one port, as is usual, make one slice, named as upstream
    /// names it.
    pub(super) fn documents(&self) -> Vec<(Shelf, String, Value)> {
        let subsets: Vec<Value> = self
            .0
            .iter()
            .map(|((_, port), addresses)| {
                let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
                json!({"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
            })
            .collect();
        let endpoints = json!({
            "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": {SKIP_MIRROR: "true"}},
            "subsets": subsets,
        });
        let slices = self.0.iter().enumerate().map(|(index, ((is_ipv6, port), addresses))| {
            let (family, letter) = if *is_ipv6 { ("IPv6", "v6-") } else { ("IPv4", "") };
            let name = if index == 0 { SERVICE.to_owned() } else { format!("{SERVICE}-{letter}{port}") };
            let endpoints: Vec<Value> = addresses
                .iter()
                .map(|ip| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}}))
                .collect();
            let document = json!({
                "metadata": {"name": name, "namespace": NAMESPACE,
                    "labels": {SERVICE_NAME: SERVICE, MANAGED_BY.0: MANAGED_BY.1}},
                "addressType": family,
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
                "endpoints": endpoints,
            });
            (ENDPOINT_SLICES, name, document)
        });
        let endpoints = (ENDPOINTS, SERVICE.to_owned(), endpoints);
        std::iter::once(endpoints).chain(slices).filter(|_| !self.0.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One slice for a port and family, the first with the Service's own name; no address, no objects.
    #[test]
    fn addresses_are_grouped() {
        let mut groups = Groups::default();
        assert_eq!(groups.documents(), []);
        for address in ["127.0.0.1:7002", "127.0.0.1:7001", "192.0.2.1:7001", "[::1]:7001"] {
            groups.add(address.parse().expect("an address"));
        }
        let documents = groups.documents();
        let names: Vec<&str> = documents.iter().map(|(_, name, _)| name.as_str()).collect();
        assert_eq!(names, ["kubernetes", "kubernetes", "kubernetes-7002", "kubernetes-v6-7001"]);
        assert_eq!(documents[0].2["subsets"].as_array().map(Vec::len), Some(3));
        assert_eq!(documents[1].2["endpoints"].as_array().map(Vec::len), Some(2));
    }
}
