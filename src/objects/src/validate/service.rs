//! Services and Ingresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::{FieldError, Path, complain, labels, one_of, port_number, required_text};
use crate::names;
use crate::place;

const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(crate) fn service(object: &Value, errors: &mut Vec<FieldError>) {
    let at = Path::new("spec");
    let Some(spec) = place::get(object, &["spec"]) else {
        errors.push(FieldError::required(&at.child("ports"), ""));
        return;
    };
    one_of(spec, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &at, errors);
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], &at, errors);
    one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], &at, errors);
    one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], &at, errors);
    labels(place::get(spec, &["selector"]), &at.child("selector"), errors);
    let service_type = place::text_or_empty(spec, &["type"]);
    let cluster_ip = place::text_or_empty(spec, &["clusterIP"]);
    let headless = cluster_ip == "None";
    if service_type == "ExternalName" {
        if !cluster_ip.is_empty() {
            errors.push(FieldError::forbidden(&at.child("clusterIPs"), "may not be set for ExternalName services"));
        }
        if let Some(name) = required_text(spec, "externalName", &at, errors) {
            complain(errors, &at.child("externalName"), name, names::dns1123_subdomain(name.trim_end_matches('.')));
        }
    } else if place::items(spec, &["ports"]).is_empty() && !headless {
        errors.push(FieldError::required(&at.child("ports"), ""));
    }
    if headless && matches!(service_type, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {service_type} services");
        errors.push(FieldError::invalid(&at.child("clusterIPs").index(0), &"None".into(), &detail));
    }
    for (index, ip) in place::items(spec, &["clusterIPs"]).iter().filter_map(Value::as_str).enumerate() {
        if !(ip.is_empty() || ip == "None" || ip.parse::<IpAddr>().is_ok()) {
            errors.push(FieldError::invalid(&at.child("clusterIPs").index(index), &ip.into(), NOT_AN_IP));
        }
    }
    let first = place::items(spec, &["clusterIPs"]).first().and_then(Value::as_str).unwrap_or_default();
    if !first.is_empty() && first != cluster_ip {
        let detail = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(&at.child("clusterIPs"), &first.into(), detail));
    }
    for (index, ip) in place::items(spec, &["externalIPs"]).iter().filter_map(Value::as_str).enumerate() {
        if ip.parse::<IpAddr>().is_err() {
            errors.push(FieldError::invalid(&at.child("externalIPs").index(index), &ip.into(), NOT_AN_IP));
        }
    }
    ports(spec, service_type, &at.child("ports"), errors);
}

fn ports(spec: &Value, service_type: &str, at: &Path, errors: &mut Vec<FieldError>) {
    let ports = place::items(spec, &["ports"]);
    let (mut known_names, mut known_ports) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let at = at.index(index);
        let name = place::text_or_empty(port, &["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(&at.child("name"), ""));
            }
        } else {
            complain(errors, &at.child("name"), name, names::dns1123_label(name));
            if !known_names.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), &name.into()));
            }
        }
        let number = place::int(port, &["port"]).unwrap_or(0);
        port_number(number, &at.child("port"), errors);
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &at, errors);
        let protocol = place::text_or_empty(port, &["protocol"]);
        if !known_ports.insert((number, protocol)) {
            errors.push(FieldError::duplicate(&at, &serde_json::json!({"port": number, "protocol": protocol})));
        }
        match place::get(port, &["targetPort"]) {
            Some(Value::String(text)) => complain(errors, &at.child("targetPort"), text, names::port_name(text)),
            Some(target) => port_number(target.as_i64().unwrap_or(0), &at.child("targetPort"), errors),
            None => {}
        }
        if let Some(node_port) = place::int(port, &["nodePort"]).filter(|port| *port != 0) {
            if matches!(service_type, "ClusterIP" | "ExternalName") {
                let detail = format!("may not be used when `type` is '{service_type}'");
                errors.push(FieldError::forbidden(&at.child("nodePort"), &detail));
            } else {
                port_number(node_port, &at.child("nodePort"), errors);
            }
        }
    }
}

/// An address once given stays, unless the Service stops having one.
pub(crate) fn service_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let ip = |object| place::text_or_empty(object, &["spec", "clusterIP"]);
    let external_name = |object| place::text_or_empty(object, &["spec", "type"]) == "ExternalName";
    if ip(old).is_empty() || external_name(old) || external_name(new) || ip(new) == ip(old) {
        return;
    }
    let value = place::get(new, &["spec", "clusterIPs"]).cloned().unwrap_or_else(|| serde_json::json!([ip(new)]));
    errors.push(FieldError::invalid(&Path::new("spec.clusterIPs").index(0), &value, "may not change once set"));
}

pub(crate) fn ingress(object: &Value, errors: &mut Vec<FieldError>) {
    let at = Path::new("spec");
    let rules = place::items(object, &["spec", "rules"]);
    let default = place::get(object, &["spec", "defaultBackend"]);
    if rules.is_empty() && default.is_none() {
        let spec = place::get(object, &["spec"]).unwrap_or(&Value::Null);
        errors.push(FieldError::invalid(&at, spec, "either `defaultBackend` or `rules` must be specified"));
    }
    if let Some(default) = default {
        backend(default, &at.child("defaultBackend"), errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = at.child("rules").index(index);
        if let Some(host) = place::text(rule, &["host"]).filter(|host| !host.is_empty()) {
            let name = host.strip_prefix("*.").unwrap_or(host);
            complain(errors, &at.child("host"), host, names::dns1123_subdomain(name));
        }
        let at = at.child("http").child("paths");
        let paths = place::items(rule, &["http", "paths"]);
        if place::get(rule, &["http"]).is_some() && paths.is_empty() {
            errors.push(FieldError::required(&at, ""));
        }
        for (index, path) in paths.iter().enumerate() {
            let at = at.index(index);
            if required_text(path, "pathType", &at, errors).is_some() {
                one_of(path, "pathType", &["Exact", "ImplementationSpecific", "Prefix"], &at, errors);
            }
            let text = place::text_or_empty(path, &["path"]);
            let needs_path = matches!(place::text_or_empty(path, &["pathType"]), "Exact" | "Prefix");
            if (needs_path || !text.is_empty()) && !text.starts_with('/') {
                errors.push(FieldError::invalid(&at.child("path"), &text.into(), "must be an absolute path"));
            }
            backend(path.get("backend").unwrap_or(&Value::Null), &at.child("backend"), errors);
        }
    }
}

fn backend(backend: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    match (place::get(backend, &["service"]), place::get(backend, &["resource"])) {
        (None, None) => errors.push(FieldError::required(at, "port name or number is required")),
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(at, &"".into(), detail));
        }
        (Some(service), None) => {
            let at = at.child("service");
            required_text(service, "name", &at, errors);
            let name = place::text_or_empty(service, &["port", "name"]);
            match (name.is_empty(), place::int(service, &["port", "number"]).unwrap_or(0)) {
                (true, 0) => errors.push(FieldError::required(&at, "port name or number is required")),
                (true, number) => port_number(number, &at.child("port").child("number"), errors),
                (false, 0) => complain(errors, &at.child("port").child("name"), name, names::port_name(name)),
                (false, _) => {
                    errors.push(FieldError::invalid(&at, &"".into(), "cannot set both port name & port number"));
                }
            }
        }
        (None, Some(_)) => {}
    }
}
