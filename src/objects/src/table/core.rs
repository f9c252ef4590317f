//! Services and their addresses, nodes, namespaces, configuration, events.

use serde_json::Value;

use super::apps::entries;
use super::{
    AGE, Column, NAME, Printer, Shown, age, cell, cell_or, integer, joined, labels_text, name, since, text, wide,
};
use crate::place;

/// Most addresses shown in one cell.
const SHOWN_MAX: usize = 3;

pub(crate) static SERVICES: Printer = Printer {
    columns: &[
        NAME,
        text("Type", "How the service is reached."),
        text("Cluster-IP", "Address inside the cluster."),
        text("External-IP", "Addresses outside the cluster."),
        text("Port(s)", "Ports, with node ports where there are any."),
        AGE,
        wide("Selector", "Which pods serve."),
    ],
    cells: |object, now| {
        vec![
            name(object),
            cell(object, &["spec", "type"]),
            cell_or(object, &["spec", "clusterIP"], "<none>"),
            external_ips(object).into(),
            joined(place::items(object, &["spec", "ports"]).iter().map(service_port)).into(),
            age(object, now),
            labels_text(place::get(object, &["spec", "selector"])).into(),
        ]
    },
};

fn external_ips(service: &Value) -> String {
    let listed = place::items(service, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).map(str::to_owned);
    match place::text_or_empty(service, &["spec", "type"]) {
        "ExternalName" => place::text(service, &["spec", "externalName"]).unwrap_or("<none>").to_owned(),
        "LoadBalancer" => {
            let addresses: Vec<String> = load_balancer(service).chain(listed).collect();
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        _ => joined(listed),
    }
}

fn load_balancer(object: &Value) -> impl Iterator<Item = String> {
    let ingress = place::items(object, &["status", "loadBalancer", "ingress"]).iter();
    ingress
        .filter_map(|entry| place::text(entry, &["ip"]).or_else(|| place::text(entry, &["hostname"])))
        .map(str::to_owned)
}

fn service_port(port: &Value) -> String {
    let number = place::int(port, &["port"]).unwrap_or(0);
    let protocol = place::text(port, &["protocol"]).unwrap_or("TCP");
    match place::int(port, &["nodePort"]).unwrap_or(0) {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

/// The first few of `texts`, and how many more there are.
fn some_of(texts: &[String]) -> String {
    match texts.get(..SHOWN_MAX) {
        Some(shown) if texts.len() > SHOWN_MAX => format!("{} + {} more...", shown.join(","), texts.len() - SHOWN_MAX),
        _ => joined(texts),
    }
}

pub(crate) static ENDPOINTS: Printer = Printer {
    columns: &[NAME, text("Endpoints", "Addresses and ports that serve."), AGE],
    cells: |object, now| {
        let mut texts = Vec::new();
        for subset in place::items(object, &["subsets"]) {
            let addresses = place::items(subset, &["addresses"]);
            let ports = place::items(subset, &["ports"]);
            for address in addresses.iter().filter_map(|address| place::text(address, &["ip"])) {
                if ports.is_empty() {
                    texts.push(address.to_owned());
                }
                texts
                    .extend(ports.iter().map(|port| format!("{address}:{}", place::int(port, &["port"]).unwrap_or(0))));
            }
        }
        vec![name(object), some_of(&texts).into(), age(object, now)]
    },
};

pub(crate) static ENDPOINT_SLICES: Printer = Printer {
    columns: &[
        NAME,
        text("AddressType", "Family of the addresses."),
        text("Ports", "Ports that serve."),
        text("Endpoints", "Addresses that serve."),
        AGE,
    ],
    cells: |object, now| {
        let ports: Vec<String> = place::items(object, &["ports"])
            .iter()
            .map(|port| place::int(port, &["port"]).map_or_else(|| "*".to_owned(), |number| number.to_string()))
            .collect();
        let addresses: Vec<String> = place::items(object, &["endpoints"])
            .iter()
            .flat_map(|endpoint| place::items(endpoint, &["addresses"]))
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let ports = if ports.is_empty() { "<unset>".to_owned() } else { some_of(&ports) };
        let addresses = if addresses.is_empty() { "<unset>".to_owned() } else { some_of(&addresses) };
        vec![name(object), cell(object, &["addressType"]), ports.into(), addresses.into(), age(object, now)]
    },
};

pub(crate) static INGRESSES: Printer = Printer {
    columns: &[
        NAME,
        text("Class", "Controller that serves it."),
        text("Hosts", "Host names."),
        text("Address", "Addresses it is reached at."),
        text("Ports", "Ports it is reached at."),
        AGE,
    ],
    cells: |object, now| {
        let hosts: Vec<String> = place::items(object, &["spec", "rules"])
            .iter()
            .filter_map(|rule| place::text(rule, &["host"]))
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect();
        let hosts = if hosts.is_empty() { "*".to_owned() } else { some_of(&hosts) };
        let ports = if place::items(object, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
        let addresses: Vec<String> = load_balancer(object).collect();
        vec![
            name(object),
            cell_or(object, &["spec", "ingressClassName"], "<none>"),
            hosts.into(),
            addresses.join(",").into(),
            ports.into(),
            age(object, now),
        ]
    },
};

pub(crate) static INGRESS_CLASSES: Printer = Printer {
    columns: &[
        NAME,
        text("Controller", "Controller of the class."),
        text("Parameters", "Object that configures it."),
        AGE,
    ],
    cells: |object, now| {
        let parameters = place::get(object, &["spec", "parameters"]).map_or_else(
            || "<none>".to_owned(),
            |reference| {
                let group = place::text_or_empty(reference, &["apiGroup"]);
                let dot = if group.is_empty() { "" } else { "." };
                let kind = place::text_or_empty(reference, &["kind"]);
                format!("{kind}{dot}{group}/{}", place::text_or_empty(reference, &["name"]))
            },
        );
        vec![name(object), cell(object, &["spec", "controller"]), parameters.into(), age(object, now)]
    },
};

pub(crate) static NETWORK_POLICIES: Printer = Printer {
    columns: &[NAME, text("Pod-Selector", "Pods it applies to."), AGE],
    cells: |object, now| {
        let selector = crate::select::LabelSelector::from_object(place::get(object, &["spec", "podSelector"]));
        let text = selector.map(|selector| selector.to_string()).unwrap_or_default();
        vec![name(object), if text.is_empty() { "<none>".into() } else { text.into() }, age(object, now)]
    },
};

pub(crate) static NAMESPACES: Printer = Printer {
    columns: &[NAME, text("Status", "Active, or on its way out."), AGE],
    cells: |object, now| vec![name(object), cell(object, &["status", "phase"]), age(object, now)],
};

pub(crate) static NODES: Printer = Printer {
    columns: &[
        NAME,
        text("Status", "Whether the node is ready and takes pods."),
        text("Roles", "Roles by label."),
        AGE,
        text("Version", "Version of the node's agent."),
        wide("Internal-IP", "Address inside the cluster's network."),
        wide("External-IP", "Address outside of it."),
        wide("OS-Image", "Operating system."),
        wide("Kernel-Version", "Kernel."),
        wide("Container-Runtime", "Runtime of containers."),
    ],
    cells: |object, now| {
        let info = |field: &str| cell_or(object, &["status", "nodeInfo", field], "<unknown>");
        vec![
            name(object),
            node_status(object).into(),
            node_roles(object).into(),
            age(object, now),
            cell(object, &["status", "nodeInfo", "kubeletVersion"]),
            node_address(object, "InternalIP").into(),
            node_address(object, "ExternalIP").into(),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let conditions = place::items(node, &["status", "conditions"]);
    let ready = conditions.iter().find(|condition| place::text(condition, &["type"]) == Some("Ready"));
    let mut words = match ready.and_then(|condition| place::text(condition, &["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if place::flag(node, &["spec", "unschedulable"]) {
        words.push_str(",SchedulingDisabled");
    }
    words
}

fn node_roles(node: &Value) -> String {
    let labels = place::map(node, &["metadata", "labels"]);
    joined(labels.into_iter().flatten().filter_map(|(key, value)| {
        key.strip_prefix("node-role.kubernetes.io/")
            .filter(|role| !role.is_empty())
            .or_else(|| if key == "kubernetes.io/role" { value.as_str().filter(|role| !role.is_empty()) } else { None })
    }))
}

fn node_address(node: &Value, address_type: &str) -> String {
    let addresses = place::items(node, &["status", "addresses"]);
    let found = addresses.iter().find(|address| place::text(address, &["type"]) == Some(address_type));
    found.and_then(|address| place::text(address, &["address"])).unwrap_or("<none>").to_owned()
}

pub(crate) static CONFIG_MAPS: Printer = Printer {
    columns: &[NAME, integer("Data", "Number of entries."), AGE],
    cells: |object, now| {
        let data = entries(object, &["data"]) + entries(object, &["binaryData"]);
        vec![name(object), data.into(), age(object, now)]
    },
};

pub(crate) static SECRETS: Printer = Printer {
    columns: &[NAME, text("Type", "What the secret is for."), integer("Data", "Number of entries."), AGE],
    cells: |object, now| {
        vec![name(object), cell(object, &["type"]), entries(object, &["data"]).into(), age(object, now)]
    },
};

pub(crate) static SERVICE_ACCOUNTS: Printer = Printer {
    columns: &[NAME, integer("Secrets", "Number of listed secrets."), AGE],
    cells: |object, now| vec![name(object), place::items(object, &["secrets"]).len().into(), age(object, now)],
};

pub(crate) static EVENTS: Printer = Printer {
    columns: &[
        text("Last Seen", "Time since it last happened."),
        text("Type", "Normal or Warning."),
        text("Reason", "One word on what happened."),
        text("Object", "What it happened to."),
        wide("Subobject", "Part of the object."),
        wide("Source", "Who reported it."),
        text("Message", "What happened."),
        wide("First Seen", "Time since it first happened."),
        wide("Count", "How often it happened."),
        Column { shown: Shown::Wide, ..NAME },
    ],
    cells: event_cells,
};

/// Both versions of Event: the newer names its object `regarding`, its text `note`.
fn event_cells(event: &Value, now: i64) -> Vec<Value> {
    let either = |paths: &[&[&str]]| {
        paths.iter().find_map(|path| place::text(event, path)).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let involved = ["involvedObject", "regarding"].iter().find_map(|key| place::get(event, &[key]));
    let involved = involved.unwrap_or(&Value::Null);
    let object = format!(
        "{}/{}",
        place::text_or_empty(involved, &["kind"]).to_lowercase(),
        place::text_or_empty(involved, &["name"])
    );
    let first = either(&[&["firstTimestamp"], &["deprecatedFirstTimestamp"], &["eventTime"]]);
    let last = either(&[&["series", "lastObservedTime"], &["lastTimestamp"], &["deprecatedLastTimestamp"]]);
    let last = last.or_else(|| first.clone());
    let source =
        either(&[&["source", "component"], &["reportingComponent"], &["reportingController"]]).unwrap_or_default();
    let host = either(&[&["source", "host"], &["deprecatedSource", "host"]]);
    let source = host.map_or_else(|| source.clone(), |host| format!("{source}, {host}"));
    let times = [&["series", "count"][..], &["count"], &["deprecatedCount"]];
    let times = times.iter().find_map(|path| place::int(event, path)).unwrap_or(1);
    vec![
        since(last.as_deref(), now).into(),
        cell(event, &["type"]),
        cell(event, &["reason"]),
        object.into(),
        place::text_or_empty(involved, &["fieldPath"]).into(),
        source.into(),
        either(&[&["message"], &["note"]]).unwrap_or_default().trim().into(),
        since(first.as_deref(), now).into(),
        times.to_string().into(),
        name(event),
    ]
}
