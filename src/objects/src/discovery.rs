//! Discovery: the documents by which clients learn what is served, in the plain and in the aggregated form.
//!
//! All of it derives from kinds; custom ones are listed like built-in ones. Nothing here knows who asks.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::kind::{Kind, Scope, Subresource, Verb, api_version};
use crate::registry::Registry;

/// The kinds that are served: the table's, less hidden groups, and custom ones.
#[derive(Clone, Debug, Default)]
pub struct Catalogue<'a> {
    kinds: Vec<&'a Kind>,
}

impl<'a> From<&'a Registry> for Catalogue<'a> {
    fn from(registry: &'a Registry) -> Self {
        Self { kinds: registry.kinds().iter().collect() }
    }
}

impl<'a> Catalogue<'a> {
    /// The same with `kinds`, which may be custom ones.
    #[must_use]
    pub fn with(mut self, kinds: impl IntoIterator<Item = &'a Kind>) -> Self {
        self.kinds.extend(kinds);
        self
    }

    /// The same without these groups.
    #[must_use]
    pub fn hiding(mut self, groups: &[&str]) -> Self {
        self.kinds.retain(|kind| !groups.contains(&&*kind.group));
        self
    }

    /// The kinds of one group and version, ordered by plural.
    #[must_use]
    pub fn of(&self, group: &str, version: &str) -> Vec<&'a Kind> {
        let mut kinds: Vec<&'a Kind> =
            self.kinds.iter().copied().filter(|kind| kind.group == group && kind.version == version).collect();
        kinds.sort_by(|a, b| a.plural.cmp(&b.plural));
        kinds
    }

    /// Groups but the core one, in the order in which clients look a short name up.
    fn groups(&self) -> Vec<&'a str> {
        let groups: BTreeSet<&'a str> =
            self.kinds.iter().map(|kind| &*kind.group).filter(|group| !group.is_empty()).collect();
        let mut groups: Vec<&'a str> = groups.into_iter().collect();
        let rank = |group: &str| FIRST.iter().position(|first| *first == group).unwrap_or(FIRST.len());
        groups.sort_by_key(|group| (*group == LAST, rank(group), *group));
        groups
    }

    /// Versions of a group, the preferred one first.
    fn versions(&self, group: &str) -> Vec<&'a str> {
        let versions: BTreeSet<&'a str> =
            self.kinds.iter().filter(|kind| kind.group == group).map(|kind| &*kind.version).collect();
        let mut versions: Vec<&'a str> = versions.into_iter().collect();
        versions.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.cmp(b)));
        versions
    }
}

/// Groups that come before all others, as in Kubernetes itself.
const FIRST: [&str; 5] =
    ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io"];
/// The group whose resources have the names of core ones and must never win against them.
const LAST: &str = "metrics.k8s.io";

/// Order of versions: stable before beta before alpha, higher before lower, others last.
fn rank(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    if let Some(major) = number(rest) {
        return (3, major, 0);
    }
    for (word, stage) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(word)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (stage, major, minor);
        }
    }
    (0, 0, 0)
}

/// `/api`.
#[must_use]
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]})
}

/// `/apis`.
pub fn groups<'a>(catalogue: impl Into<Catalogue<'a>>) -> Value {
    let catalogue = catalogue.into();
    let groups: Vec<Value> = catalogue.groups().into_iter().map(|group| group_value(&catalogue, group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`; `None` for a group that is not served.
pub fn group<'a>(catalogue: impl Into<Catalogue<'a>>, group: &str) -> Option<Value> {
    let catalogue = catalogue.into();
    if group.is_empty() || catalogue.versions(group).is_empty() {
        return None;
    }
    let mut value = group_value(&catalogue, group);
    let map = value.as_object_mut()?;
    map.insert("kind".to_owned(), "APIGroup".into());
    map.insert("apiVersion".to_owned(), "v1".into());
    Some(value)
}

fn group_value(catalogue: &Catalogue<'_>, group: &str) -> Value {
    let version = |version: &str| json!({"groupVersion": api_version(group, version), "version": version});
    let versions: Vec<Value> = catalogue.versions(group).into_iter().map(version).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

fn verb_names(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.name()).collect()
}

/// `/api/v1`, `/apis/{group}/{version}`; `None` for a version that is not served.
pub fn resources<'a>(catalogue: impl Into<Catalogue<'a>>, group: &str, version: &str) -> Option<Value> {
    let kinds = catalogue.into().of(group, version);
    if kinds.is_empty() {
        return None;
    }
    let mut resources = Vec::new();
    for kind in kinds {
        resources.push(resource(kind));
        resources.extend(kind.subresources.iter().map(|sub| plain_subresource(kind, sub)));
    }
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": resources}),
    )
}

fn resource(kind: &Kind) -> Value {
    let mut out = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.is_namespaced(),
        "kind": kind.kind, "verbs": verb_names(&kind.verbs)});
    short_names_and_categories(kind, &mut out);
    out
}

fn short_names_and_categories(kind: &Kind, out: &mut Value) {
    for (key, words) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !words.is_empty() {
            crate::place::set(out, &[key], words.iter().map(|word| Value::from(&**word)).collect::<Vec<_>>());
        }
    }
}

fn plain_subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut out = json!({"name": format!("{}/{}", kind.plural, sub.name), "singularName": "",
        "namespaced": kind.is_namespaced(), "kind": sub.kind.kind, "verbs": verb_names(&sub.verbs)});
    if sub.kind.group != kind.group || sub.kind.version != kind.version {
        crate::place::set(&mut out, &["group"], &*sub.kind.group);
        crate::place::set(&mut out, &["version"], &*sub.kind.version);
    }
    out
}

/// `/api` in the aggregated form.
pub fn aggregated_core<'a>(catalogue: impl Into<Catalogue<'a>>) -> Value {
    let catalogue = catalogue.into();
    aggregated(vec![aggregated_group(&catalogue, "")])
}

/// `/apis` in the aggregated form.
pub fn aggregated_groups<'a>(catalogue: impl Into<Catalogue<'a>>) -> Value {
    let catalogue = catalogue.into();
    aggregated(catalogue.groups().into_iter().map(|group| aggregated_group(&catalogue, group)).collect())
}

fn aggregated(items: Vec<Value>) -> Value {
    let mut out = Map::new();
    out.insert("kind".to_owned(), "APIGroupDiscoveryList".into());
    out.insert("apiVersion".to_owned(), "apidiscovery.k8s.io/v2".into());
    out.insert("metadata".to_owned(), json!({}));
    out.insert("items".to_owned(), items.into());
    Value::Object(out)
}

fn aggregated_group(catalogue: &Catalogue<'_>, group: &str) -> Value {
    let versions: Vec<Value> = catalogue
        .versions(group)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> = catalogue.of(group, version).into_iter().map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let scope = match kind.scope {
        Scope::Cluster => "Cluster",
        Scope::Namespaced => "Namespaced",
    };
    let mut out = json!({"resource": kind.plural, "responseKind": response_kind(&kind.group, &kind.version, &kind.kind),
        "scope": scope, "singularResource": kind.singular, "verbs": verb_names(&kind.verbs)});
    short_names_and_categories(kind, &mut out);
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| {
            json!({"subresource": sub.name, "verbs": verb_names(&sub.verbs),
                "responseKind": response_kind(&sub.kind.group, &sub.kind.version, &sub.kind.kind)})
        })
        .collect();
    if !subresources.is_empty() {
        crate::place::set(&mut out, &["subresources"], subresources);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::registry;

    /// Both forms list every kind, once, with its verbs.
    #[test]
    fn both_forms_list_every_kind() {
        let core = aggregated_core(registry());
        let all = aggregated_groups(registry());
        for kind in registry().kinds() {
            let list = resources(registry(), &kind.group, &kind.version).expect("served");
            let plain: Vec<&Value> = list["resources"]
                .as_array()
                .expect("list")
                .iter()
                .filter(|resource| resource["name"] == json!(kind.plural))
                .collect();
            assert_eq!(plain.len(), 1, "{}", kind.plural);
            assert_eq!(plain[0]["kind"], json!(kind.kind));
            assert_eq!(plain[0]["verbs"].as_array().map(Vec::len), Some(kind.verbs.len()));
            let document = if kind.group.is_empty() { &core } else { &all };
            let found = document["items"].as_array().expect("items").iter().any(|group| {
                group["metadata"].get("name").and_then(Value::as_str).unwrap_or_default() == kind.group
                    && group["versions"].as_array().expect("versions").iter().any(|version| {
                        version["version"] == json!(kind.version)
                            && version["resources"].as_array().expect("resources").iter().any(|resource| {
                                resource["resource"] == json!(kind.plural)
                                    && resource["responseKind"]["kind"] == json!(kind.kind)
                            })
                    })
            });
            assert!(found, "{}/{} {}", kind.group, kind.version, kind.plural);
        }
    }

    /// Shapes that clients read, and groups in an order that lets core resources win.
    #[test]
    fn shapes() {
        let apps = resources(registry(), "apps", "v1").expect("served");
        let list = apps["resources"].as_array().expect("list");
        let scale = list.iter().find(|resource| resource["name"] == json!("deployments/scale")).expect("scale");
        assert_eq!(
            (&scale["group"], &scale["version"], &scale["kind"]),
            (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
        );
        let deployments = list.iter().find(|resource| resource["name"] == json!("deployments")).expect("deployments");
        assert_eq!(deployments["shortNames"], json!(["deploy"]));
        assert_eq!((&deployments["singularName"], &deployments["namespaced"]), (&json!("deployment"), &json!(true)));
        let listed = groups(registry());
        let names: Vec<&str> =
            listed["groups"].as_array().expect("groups").iter().filter_map(|group| group["name"].as_str()).collect();
        assert_eq!(names.last(), Some(&"metrics.k8s.io"));
        let autoscaling = group(registry(), "autoscaling").expect("served");
        assert_eq!(autoscaling["preferredVersion"]["version"], json!("v2"));
        assert!(group(registry(), "").is_none() && group(registry(), "no.such").is_none());
        assert!(resources(registry(), "apps", "v1beta1").is_none());
        let hidden = Catalogue::from(registry()).hiding(&["metrics.k8s.io"]);
        assert!(group(hidden, "metrics.k8s.io").is_none());
    }

    /// Versions sort as Kubernetes sorts them.
    #[test]
    fn versions_sort() {
        let mut versions = ["v1alpha1", "foo", "v1", "v2beta1", "v11", "v1beta2", "v2"];
        versions.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.cmp(b)));
        assert_eq!(versions, ["v11", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]);
    }
}
