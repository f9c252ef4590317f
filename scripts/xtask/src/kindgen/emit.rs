//! Writing the table: sorted lines, one fact set each, so that two versions compare well.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::join::{Field, Joined, Type};
use super::overrides::Overrides;
use super::swagger::{Document, Resource, group_version, gvks};

/// `v<version>.types`.
pub(super) fn types(version: &str, joined: &Joined) -> String {
    let mut out = format!(
        "# Types of the Kubernetes {version} API. Written by `cargo xtask gen kinds`; the form is described in src/registry/text.rs.\n"
    );
    for (name, ty) in &joined.types {
        match ty {
            Type::Special(shape) => {
                let _ = writeln!(out, "type {name} = {shape}");
            }
            Type::Struct { atomic, gvks, fields } => {
                let _ = write!(out, "type {name}");
                if *atomic {
                    out.push_str(" atomic");
                }
                for gvk in gvks {
                    let _ = write!(out, " gvk={gvk}");
                }
                out.push('\n');
                for (name, field) in fields {
                    out.push_str(&field_line(name, field));
                }
            }
        }
    }
    out
}

fn field_line(name: &str, field: &Field) -> String {
    let mut line = format!("\t{name} {} {}", field.number, field.expression);
    if !field.embedded_in.is_empty() {
        let path: Vec<String> = field.embedded_in.iter().map(u32::to_string).collect();
        let _ = write!(line, " in={}", path.join("."));
    }
    for (set, word) in [
        (field.pointer, "ptr"),
        (field.omitempty, "omitempty"),
        (field.required, "required"),
        (field.sensitive, "sensitive"),
        (field.immutable, "immutable"),
        (field.atomic, "atomic"),
    ] {
        if set {
            line.push(' ');
            line.push_str(word);
        }
    }
    for (key, value) in [("list", &field.list), ("patch", &field.patch), ("format", &field.format)] {
        if let Some(value) = value {
            let _ = write!(line, " {key}={value}");
        }
    }
    if !field.enumeration.is_empty() {
        // Words are separated by spaces, so a space inside a value is written as in URLs.
        let _ = write!(line, " enum={}", field.enumeration.join("|").replace(' ', "%20"));
    }
    for rule in &field.rules {
        let _ = write!(line, " rule:{rule}");
    }
    if let Some(default) = &field.default {
        let _ = write!(line, " default={default}");
    }
    line.push('\n');
    line
}

/// `v<version>.kinds`.
pub(super) fn kinds(version: &str, document: &Document, joined: &Joined, overrides: &Overrides) -> Result<String> {
    let mut out = format!(
        "# Kinds of the Kubernetes {version} API. Written by `cargo xtask gen kinds`; the form is described in src/registry/text.rs.\n"
    );
    let mut known = Vec::new();
    for ((group, version, plural), resource) in &document.resources {
        let group_version = group_version(group, version);
        let id = format!("{group_version}/{plural}");
        let type_name =
            type_of(document, group, version, &resource.kind).with_context(|| format!("{id} has no definition"))?;
        ensure!(joined.types.contains_key(&type_name), "{type_name} was not joined");
        let verbs: Vec<&str> = resource.verbs.iter().copied().collect();
        let singular = overrides.resource(&id, "singular").map_or_else(|| resource.kind.to_lowercase(), str::to_owned);
        let _ = write!(out, "kind {group_version} {} type={type_name}", resource.kind);
        if !resource.list_kind.is_empty() {
            let _ = write!(out, " list={}", resource.list_kind);
        }
        let scope = if resource.namespaced { "namespaced" } else { "cluster" };
        let _ = write!(out, " plural={plural} singular={singular} scope={scope} verbs={}", verbs.join(","));
        for key in ["short", "categories", "select", "store", "generation"] {
            if let Some(value) = overrides.resource(&id, key) {
                let _ = write!(out, " {key}={value}");
            }
        }
        out.push('\n');
        subresources(&id, &group_version, resource, overrides, &mut out)?;
        known.push(id);
    }
    for named in overrides.named_resources() {
        ensure!(known.iter().any(|id| id == named), "the overrides name the unknown resource {named}");
    }
    Ok(out)
}

fn subresources(
    id: &str,
    group_version: &str,
    resource: &Resource,
    overrides: &Overrides,
    out: &mut String,
) -> Result<()> {
    for (name, sub) in &resource.subresources {
        let kind = match overrides.subresource_kind(&format!("{id}/{name}")) {
            Some(kind) => kind.to_owned(),
            None => sub
                .kind
                .as_ref()
                .map_or_else(|| format!("{group_version}/{}", resource.kind), super::swagger::Gvk::text),
        };
        let verbs: Vec<&str> = sub.verbs.iter().copied().collect();
        ensure!(!verbs.is_empty(), "{id}/{name} has no verbs");
        let _ = writeln!(out, "\tsub {name} {kind} verbs={}", verbs.join(","));
    }
    Ok(())
}

fn type_of(document: &Document, group: &str, version: &str, kind: &str) -> Option<String> {
    let found = document.definitions.iter().find(|(_, definition)| {
        gvks(definition).iter().any(|gvk| gvk.group == group && gvk.version == version && gvk.kind == kind)
    });
    found.map(|(name, _)| name.clone())
}
