//! The environment of a container: what the Pod says, references resolved, `$(VAR)` expanded. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::assignment::Materials;
use crate::pod::{Container, EnvSource, EnvVar, Pod};

/// What a Pod's field references may name beside the Pod itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeFacts<'a> {
    pub(super) name: &'a str,
    pub(super) address: IpAddr,
}

/// Adds the container's variables to `base`, in the order Kubernetes gives them: `envFrom` first, then `env`, later ones winning.
/// An error is a message for the reason `CreateContainerConfigError`.
pub(super) fn build(
    mut variables: BTreeMap<String, String>,
    pod: &Pod,
    container: &Container,
    materials: &Materials,
    node: NodeFacts<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let resolved: BTreeMap<&str, &str> = materials.env(&container.name).collect();
    if !container.env_from.is_empty() {
        let named: Vec<&str> = container.env.iter().map(|env| env.name.as_str()).collect();
        for (name, value) in &resolved {
            if !named.contains(name) {
                variables.insert((*name).to_owned(), (*value).to_owned());
            }
        }
    }
    for env in &container.env {
        match &env.value_from {
            None => {
                let value = expand(env.value.as_deref().unwrap_or_default(), &variables);
                variables.insert(env.name.clone(), value);
            }
            Some(source) => {
                if let Some(value) = resolve(env, source, pod, &resolved, node)? {
                    variables.insert(env.name.clone(), value);
                }
            }
        }
    }
    Ok(variables)
}

fn resolve(
    env: &EnvVar,
    source: &EnvSource,
    pod: &Pod,
    resolved: &BTreeMap<&str, &str>,
    node: NodeFacts<'_>,
) -> Result<Option<String>, String> {
    let references = [("configmap", &source.config_map_key_ref), ("secret", &source.secret_key_ref)];
    for (kind, reference) in references {
        let Some(reference) = reference else { continue };
        return match resolved.get(env.name.as_str()) {
            Some(value) => Ok(Some((*value).to_owned())),
            None if reference.optional => Ok(None),
            None => Err(format!(
                "{kind} \"{}\" or its key \"{}\" not found for variable \"{}\"",
                reference.name, reference.key, env.name
            )),
        };
    }
    if let Some(field) = &source.field_ref {
        return pod_field(pod, &field.field_path, node)
            .map(Some)
            .ok_or_else(|| format!("field \"{}\" is not supported", field.field_path));
    }
    Err(format!("the source of variable \"{}\" is not supported by the process runtime", env.name))
}

/// The fields of a Pod that may be referred to.
pub(super) fn pod_field(pod: &Pod, path: &str, node: NodeFacts<'_>) -> Option<String> {
    let address = || node.address.to_string();
    Some(match path {
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "metadata.uid" => pod.uid.clone(),
        "metadata.labels" => all(&pod.metadata.labels),
        "metadata.annotations" => all(&pod.metadata.annotations),
        "spec.nodeName" => node.name.to_owned(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone().unwrap_or_default(),
        "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => address(),
        _ => {
            let (map, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match map {
                "metadata.labels" => &pod.metadata.labels,
                "metadata.annotations" => &pod.metadata.annotations,
                _ => return None,
            };
            map.get(key).cloned().unwrap_or_default()
        }
    })
}

fn all(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    lines.join("\n")
}

/// Replaces `$(NAME)` by the variable's value; `$$` stands for one `$`; a name that is not known stays as written.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|in_| in_.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    use serde_json::json;

    use super::{NodeFacts, build, expand};
    use crate::assignment::Assignment;

    const NODE: NodeFacts<'static> = NodeFacts { name: "node-a", address: IpAddr::V4(Ipv4Addr::LOCALHOST) };

    fn environment(env: &serde_json::Value, materials: &serde_json::Value) -> Result<BTreeMap<String, String>, String> {
        let assignment = Assignment::parse(&json!({
            "placement": {"id": "p"},
            "pod": {
                "metadata": {"namespace": "default", "name": "web", "uid": "u-1", "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "env": env, "envFrom": [{"configMapRef": {"name": "all"}}]}]},
            },
            "materials": materials,
        }))
        .expect("an assignment");
        let materials = assignment.materials.expect("known");
        build(BTreeMap::new(), &assignment.pod, &assignment.pod.spec.containers[0], &materials, NODE)
    }

    /// Values, fields and references arrive under their names; `env` wins over `envFrom`, and earlier variables can be used.
    #[test]
    fn variables_come_from_everywhere() {
        let variables = environment(
            &json!([
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)-$(FROM)"},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x", "optional": true}}},
            ]),
            &json!({"env": {"main": {"FROM": "map", "A": "hidden", "KEY": "sealed"}}}),
        )
        .expect("resolves");
        let expected =
            [("A", "1"), ("APP", "web"), ("B", "1-map"), ("FROM", "map"), ("KEY", "sealed"), ("NAME", "web")];
        let expected: BTreeMap<String, String> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(variables, expected);
    }

    /// A reference to nothing is an error that names it, unless it is optional.
    #[test]
    fn missing_references_are_named() {
        let error = environment(
            &json!([{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "k"}}}]),
            &json!({}),
        )
        .expect_err("cannot resolve");
        assert!(error.contains("\"cfg\"") && error.contains("\"k\""), "{error}");
    }

    /// The rules of `$(VAR)`: known, unknown, escaped, and a dollar that means nothing.
    #[test]
    fn expansion_follows_kubernetes() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)$(A)y", "x11y"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$A $( $", "$A $( $"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}
