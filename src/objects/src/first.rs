//! Objects that a cluster is never without: what it is born with, and what comes back when somebody deletes it. Where
//! they are kept and who makes them is not known here.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::place;

/// Port of the API behind its Service.
const API_PORT: u16 = 6443;

/// Name of the service account that every namespace has, and that Pods are run by which name no other.
pub const SERVICE_ACCOUNT: &str = "default";
/// Name of the ConfigMap that tells Pods of every namespace which CA the API's certificates are signed by.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// Namespace and name of the Service that leads to the API.
pub const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// The address of the Service that leads to the API: the first of the cluster's range. Nothing for what is no range.
#[must_use]
pub fn api_address(service_cidr: &str) -> Option<Ipv4Addr> {
    let (address, prefix) = service_cidr.split_once('/')?;
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let host_bits = 32_u32.checked_sub(prefix.parse().ok()?)?;
    let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
    Some(Ipv4Addr::from((address & mask).saturating_add(1)))
}

/// The service account `default`.
#[must_use]
pub fn service_account(metadata: &Value) -> Value {
    json!({ "metadata": metadata })
}

/// The ConfigMap with the CA.
#[must_use]
pub fn root_ca(metadata: &Value, data: &Value) -> Value {
    json!({ "metadata": metadata, "data": data })
}

/// The Service that leads to the API, at the first address of the cluster's range.
#[must_use]
pub fn api_service(mut metadata: Value, address: Ipv4Addr) -> Value {
    place::set(&mut metadata, &["labels"], json!({"component": "apiserver", "provider": "kubernetes"}));
    let address = address.to_string();
    json!({
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": API_PORT}],
        },
        "status": {"loadBalancer": {}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first address of a range, wherever in it the range is said to begin.
    #[test]
    fn first_addresses() {
        let text = |cidr: &str| api_address(cidr).map(|address| address.to_string());
        assert_eq!(text("10.96.0.0/12").as_deref(), Some("10.96.0.1"));
        assert_eq!(text("10.96.7.9/24").as_deref(), Some("10.96.7.1"));
        assert_eq!(text("10.0.0.0/0").as_deref(), Some("0.0.0.1"));
        for nonsense in ["", "10.96.0.0", "10.96.0.0/33", "fd00::/64", "10.96.0.0/x"] {
            assert_eq!(text(nonsense), None, "{nonsense}");
        }
    }
}
