//! Services, Endpoints, EndpointSlices. Addresses and ports are allocated elsewhere; here only what they imply.

use serde_json::{Value, json};

use crate::place;

pub(super) fn defaults(object: &mut Value) {
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill_text(spec, "type", "ClusterIP");
    place::fill_text(spec, "sessionAffinity", "None");
    match place::text_or_empty(spec, &["sessionAffinity"]) {
        "ClientIP" => {
            if let Some(config) = place::map_made(spec, &["sessionAffinityConfig", "clientIP"]) {
                config.entry("timeoutSeconds").or_insert_with(|| json!(10800));
            }
        }
        "None" => {
            place::remove(spec, &["sessionAffinityConfig"]);
        }
        _ => {}
    }
    for port in place::items_mut(spec, &["ports"]) {
        place::fill_text(port, "protocol", "TCP");
        let target = place::get(port, &["targetPort"]);
        if target.is_none_or(|target| target.as_i64() == Some(0) || target.as_str() == Some(""))
            && let Some(number) = place::get(port, &["port"]).cloned()
        {
            place::set(port, &["targetPort"], number);
        }
    }
    let service_type = place::text_or_empty(spec, &["type"]).to_owned();
    let external = matches!(service_type.as_str(), "NodePort" | "LoadBalancer");
    if external || !place::items(spec, &["externalIPs"]).is_empty() {
        place::fill_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if service_type == "LoadBalancer" {
        place::fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    if service_type != "ExternalName" {
        place::fill_text(spec, "internalTrafficPolicy", "Cluster");
        place::fill_text(spec, "ipFamilyPolicy", "SingleStack");
        if place::items(spec, &["ipFamilies"]).is_empty() {
            place::set(spec, &["ipFamilies"], json!(["IPv4"]));
        }
    }
    mirror_cluster_ips(spec);
}

/// `clusterIP` and the first of `clusterIPs` are one thing under two names.
fn mirror_cluster_ips(spec: &mut Value) {
    let one = place::text(spec, &["clusterIP"]).filter(|ip| !ip.is_empty()).map(str::to_owned);
    let many = place::items(spec, &["clusterIPs"]).first().and_then(Value::as_str).map(str::to_owned);
    match (one, many) {
        (Some(ip), None) => place::set(spec, &["clusterIPs"], json!([ip])),
        (None, Some(ip)) => place::set(spec, &["clusterIP"], ip),
        _ => {}
    }
}

/// A client that updates a Service without the values allocated to it keeps them.
pub(super) fn prepare(new: &mut Value, old: Option<&Value>) {
    let (Some(old), Some(spec)) = (old.and_then(|old| old.get("spec")), place::get_mut(new, &["spec"])) else { return };
    let service_type = |spec: &Value| place::text_or_empty(spec, &["type"]).to_owned();
    let has_cluster_ip = |service_type: &str| matches!(service_type, "ClusterIP" | "NodePort" | "LoadBalancer");
    let has_node_ports = |service_type: &str| matches!(service_type, "NodePort" | "LoadBalancer");
    let (new_type, old_type) = (service_type(spec), service_type(old));
    if has_cluster_ip(&new_type) && has_cluster_ip(&old_type) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let unset = place::get(spec, &[field]).is_none_or(|value| value.as_str() == Some(""));
            if unset && place::get(old, &[field]).is_some() {
                place::keep(spec, old, &[field]);
            }
        }
    }
    if !has_cluster_ip(&new_type)
        && has_cluster_ip(&old_type)
        && place::get(spec, &["clusterIP"]) == place::get(old, &["clusterIP"])
    {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            place::remove(spec, &[field]);
        }
    }
    if has_node_ports(&new_type) && has_node_ports(&old_type) {
        let key = |port: &Value| (place::int(port, &["port"]), place::text_or_empty(port, &["protocol"]).to_owned());
        let taken: Vec<_> =
            place::items(old, &["ports"]).iter().map(|port| (key(port), place::int(port, &["nodePort"]))).collect();
        for port in place::items_mut(spec, &["ports"]) {
            let own = key(port);
            let old_port = taken.iter().find(|(key, _)| *key == own).and_then(|(_, number)| *number);
            if let (None | Some(0), Some(number)) = (place::int(port, &["nodePort"]), old_port) {
                place::set(port, &["nodePort"], number);
            }
        }
    }
    if !has_node_ports(&new_type) && has_node_ports(&old_type) {
        for port in place::items_mut(spec, &["ports"]) {
            place::remove(port, &["nodePort"]);
        }
        if place::items(spec, &["externalIPs"]).is_empty() {
            place::remove(spec, &["externalTrafficPolicy"]);
        }
    }
    if old_type == "LoadBalancer" && new_type != "LoadBalancer" {
        place::remove(spec, &["allocateLoadBalancerNodePorts"]);
        place::set(new, &["status"], json!({"loadBalancer": {}}));
    }
}

pub(super) fn endpoints_defaults(object: &mut Value) {
    for subset in place::items_mut(object, &["subsets"]) {
        for port in place::items_mut(subset, &["ports"]) {
            place::fill_text(port, "protocol", "TCP");
        }
    }
}

pub(super) fn slice_defaults(object: &mut Value) {
    for port in place::items_mut(object, &["ports"]) {
        place::fill(port, "name", "");
        place::fill_text(port, "protocol", "TCP");
    }
}
