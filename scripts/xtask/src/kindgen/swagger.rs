//! The OpenAPI v2 document: definitions as they are, and resources recovered from its paths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Group, version, kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gvk {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
}

/// The parts of the document the table is made of.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) definitions: BTreeMap<String, Value>,
    pub(super) resources: BTreeMap<(String, String, String), Resource>,
}

/// One resource of a group and version.
#[derive(Debug, Default)]
pub(super) struct Resource {
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) namespaced: bool,
    pub(super) verbs: BTreeSet<&'static str>,
    pub(super) subresources: BTreeMap<String, Subresource>,
}

/// One subresource.
#[derive(Debug, Default)]
pub(super) struct Subresource {
    pub(super) kind: Option<Gvk>,
    pub(super) verbs: BTreeSet<&'static str>,
}

impl Gvk {
    pub(super) fn text(&self) -> String {
        format!("{}/{}", group_version(&self.group, &self.version), self.kind)
    }
}

pub(super) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `v1`, `v2`, ... and neither alpha nor beta.
pub(super) fn is_stable(version: &str) -> bool {
    version.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The group, version and kind entries of a definition or operation.
pub(super) fn gvks(value: &Value) -> Vec<Gvk> {
    let key = "x-kubernetes-group-version-kind";
    let one = |value: &Value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Gvk { group: text("group"), version: text("version"), kind: text("kind") }
    };
    match value.get(key) {
        Some(Value::Array(all)) => all.iter().map(one).collect(),
        Some(single) => vec![one(single)],
        None => Vec::new(),
    }
}

impl Document {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let document: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let definitions = document
            .get("definitions")
            .and_then(Value::as_object)
            .context("the document has no definitions")?
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut found = Self { definitions, resources: BTreeMap::new() };
        for (path, operations) in
            document.get("paths").and_then(Value::as_object).context("the document has no paths")?
        {
            found.read_path(path, operations)?;
        }
        found.resources.retain(|_, resource| !resource.kind.is_empty());
        Ok(found)
    }

    fn read_path(&mut self, path: &str, operations: &Value) -> Result<()> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Ok(()),
        };
        if !is_stable(version) {
            return Ok(());
        }
        let (watched, rest) = match rest {
            ["watch", rest @ ..] => (true, rest),
            _ => (false, rest),
        };
        let (namespaced, rest) = match rest {
            ["namespaces", "{namespace}", rest @ ..] => (true, rest),
            _ => (false, rest),
        };
        let (plural, named, sub) = match rest {
            [plural] => (*plural, false, None),
            [plural, "{name}"] => (*plural, true, None),
            [plural, "{name}", sub] => (*plural, true, Some(*sub)),
            [] | [_, "{name}", _, "{path}"] => return Ok(()),
            _ => bail!("unknown path {path}"),
        };
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        let resource = self.resources.entry(key).or_default();
        resource.namespaced |= namespaced;
        if watched {
            resource.verbs.insert("watch");
            return Ok(());
        }
        for (method, operation) in operations.as_object().context("a path without operations")? {
            let Some(action) = operation.get("x-kubernetes-action").and_then(Value::as_str) else { continue };
            let kind = gvks(operation).into_iter().next();
            let verb = match (action, method.as_str()) {
                ("post", _) | ("connect", "post") => "create",
                ("put", _) | ("connect", "put") => "update",
                ("patch", _) | ("connect", "patch") => "patch",
                ("get", _) | ("connect", "get") => "get",
                ("delete", _) | ("connect", "delete") => "delete",
                ("list", _) => "list",
                ("deletecollection", _) => "deletecollection",
                ("connect", "head" | "options") => continue,
                _ => bail!("unknown action {action} of {method} {path}"),
            };
            match sub {
                Some(sub) => {
                    let sub = resource.subresources.entry(sub.to_owned()).or_default();
                    sub.kind = kind;
                    sub.verbs.insert(verb);
                }
                None => {
                    if verb == "list" {
                        resource.list_kind = response_kind(operation).unwrap_or_default();
                    }
                    if let Some(kind) = kind.filter(|_| named || resource.kind.is_empty()) {
                        resource.kind = kind.kind;
                    }
                    resource.verbs.insert(verb);
                }
            }
        }
        Ok(())
    }
}

fn response_kind(operation: &Value) -> Option<String> {
    let reference = operation.pointer("/responses/200/schema/$ref")?.as_str()?;
    reference.rsplit('.').next().map(str::to_owned)
}
