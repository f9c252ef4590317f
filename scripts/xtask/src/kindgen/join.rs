//! The join: every definition reachable from a stable kind, its fields seen by OpenAPI, Go and proto at once.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::go::{Body, Declaration, Packages, Resolved};
use super::overrides::Overrides;
use super::proto::Messages;
use super::swagger::{Document, gvks, is_stable};

/// The joined types and what did not fit.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) types: BTreeMap<String, Type>,
    pub(super) problems: Vec<String>,
}

/// One definition.
#[derive(Debug)]
pub(super) enum Type {
    /// A form of its own, as the table writes it.
    Special(String),
    /// Fields by name.
    Struct { atomic: bool, gvks: Vec<String>, fields: BTreeMap<String, Field> },
}

/// One field with everything the table says about it.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Wire numbers of the embedded messages this field was flattened from, outermost first.
    pub(super) embedded_in: Vec<u32>,
    pub(super) expression: String,
    pub(super) pointer: bool,
    pub(super) omitempty: bool,
    pub(super) required: bool,
    pub(super) sensitive: bool,
    pub(super) immutable: bool,
    pub(super) atomic: bool,
    pub(super) list: Option<String>,
    pub(super) patch: Option<String>,
    pub(super) format: Option<String>,
    pub(super) enumeration: Vec<String>,
    pub(super) rules: BTreeSet<String>,
    pub(super) default: Option<String>,
}

/// Definitions that are no structs, and what they are.
const SPECIAL: &[(&str, &str)] = &[
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "json"),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
        "orArray io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
        "orBool io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
        "orStrings io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
    ),
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "fieldsV1"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "microTime"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "rawExtension"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "intOrString"),
];

/// Definition that every group and version lists as its own.
const SHARED: &[&str] =
    &["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent"];

/// Declarative rules the table carries.
const RULES: &[&str] = &[
    "format",
    "maxBytes",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "required",
    "unique",
    "update",
];

pub(super) fn join(
    document: &Document,
    packages: &Packages,
    messages: &Messages,
    overrides: &Overrides,
) -> Result<Joined> {
    let mut joined = Joined::default();
    let mut open: Vec<String> = document
        .definitions
        .iter()
        .filter(|(_, definition)| gvks(definition).iter().any(|gvk| is_stable(&gvk.version)))
        .map(|(name, _)| name.clone())
        .collect();
    while let Some(name) = open.pop() {
        if joined.types.contains_key(&name) {
            continue;
        }
        let definition =
            document.definitions.get(&name).with_context(|| format!("{name} is referred to and not defined"))?;
        open.extend(references(definition));
        let mut problems = Vec::new();
        let ty = match SPECIAL.iter().find(|(special, _)| *special == name) {
            Some((_, shape)) => {
                open.extend(shape.split_once(' ').map(|(_, inner)| inner.to_owned()));
                Type::Special((*shape).to_owned())
            }
            None => {
                Joiner { packages, messages, overrides, name: &name, problems: &mut problems }.structure(definition)?
            }
        };
        joined.types.insert(name, ty);
        joined.problems.append(&mut problems);
    }
    joined.problems.sort();
    Ok(joined)
}

/// Definition names referred to by a definition's properties.
fn references(definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<&Value> =
        definition.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.values()).collect();
    while let Some(property) = open.pop() {
        if let Some(reference) = property.get("$ref").and_then(Value::as_str) {
            found.extend(reference.strip_prefix("#/definitions/").map(str::to_owned));
        }
        open.extend(["items", "additionalProperties"].iter().filter_map(|key| property.get(*key)));
    }
    found
}

struct Joiner<'a> {
    packages: &'a Packages,
    messages: &'a Messages,
    overrides: &'a Overrides,
    name: &'a str,
    problems: &'a mut Vec<String>,
}

impl Joiner<'_> {
    fn structure(&mut self, definition: &Value) -> Result<Type> {
        let (package, short) = self.name.rsplit_once('.').context("a definition without a package")?;
        let mut gvks: Vec<String> =
            gvks(definition).into_iter().filter(|gvk| is_stable(&gvk.version)).map(|gvk| gvk.text()).collect();
        if SHARED.contains(&self.name) {
            gvks = vec![format!("v1/{short}")];
        }
        let mut fields = BTreeMap::new();
        match self.packages.declaration(package, short) {
            Some(declaration) => self.fields(package, declaration, Some(self.name), &[], &mut fields)?,
            None => self.problem("", "no Go type"),
        }
        let empty = serde_json::Map::new();
        let properties = definition.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: BTreeSet<&str> = definition
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, property) in properties {
            match fields.get_mut(name) {
                Some(field) => {
                    field.required = required.contains(name.as_str());
                    self.attributes(name, property, field);
                }
                None => self.problem(name, "in OpenAPI and not in Go"),
            }
        }
        let unknown: Vec<String> = fields.keys().filter(|name| !properties.contains_key(*name)).cloned().collect();
        for name in unknown {
            self.problem(&name, "in Go and not in OpenAPI");
        }
        let atomic = definition.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
        Ok(Type::Struct { atomic, gvks, fields })
    }

    fn problem(&mut self, field: &str, what: &str) {
        let place = if field.is_empty() { self.name.to_owned() } else { format!("{}.{field}", self.name) };
        if !self.overrides.is_exception(&place) {
            self.problems.push(format!("{place}: {what}"));
        }
    }

    /// Collects the fields of a struct, flattening inlined ones, and checks each message on the way against its proto file.
    fn fields(
        &mut self,
        package: &str,
        declaration: &Declaration,
        message: Option<&str>,
        embedded_in: &[u32],
        into: &mut BTreeMap<String, Field>,
    ) -> Result<()> {
        let Body::Struct(fields) = &declaration.body else {
            self.problem("", "no Go struct");
            return Ok(());
        };
        let mut wire = BTreeMap::new();
        for source in fields {
            let resolved = self.packages.resolve(package, declaration, &source.ty)?;
            if message.is_some() && source.number != 0 {
                wire.insert(source.number, (source, expression(&resolved)));
            }
            if source.inline {
                let Resolved::Named(home, name) = &resolved else {
                    self.problem(&source.ty, "inlined and no struct");
                    continue;
                };
                let inner =
                    self.packages.declaration(home, name).with_context(|| format!("{home}.{name} is not declared"))?;
                // A struct inlined without a number (TypeMeta) is not on the wire at all.
                let inner_name = format!("{home}.{name}");
                let inner_message = Some(inner_name.as_str()).filter(|_| message.is_some() && source.number != 0);
                let mut path = embedded_in.to_vec();
                path.push(source.number);
                self.fields(home, inner, inner_message, &path, into)?;
                continue;
            }
            let on_wire = message.is_some() && source.number != 0;
            let mut field = Field {
                number: if on_wire { source.number } else { 0 },
                embedded_in: if on_wire { embedded_in.to_vec() } else { Vec::new() },
                expression: expression(&resolved),
                pointer: source.ty.starts_with('*'),
                omitempty: source.omitempty,
                sensitive: self.overrides.is_sensitive(&format!("{}.{}", self.name, source.json)),
                enumeration: self.packages.enumeration(package, declaration, &source.ty),
                ..Field::default()
            };
            self.markers(package, source, &mut field);
            into.insert(source.json.clone(), field);
        }
        if let Some(message) = message {
            self.check_wire(message, &wire);
        }
        Ok(())
    }

    fn markers(&mut self, package: &str, source: &super::go::Field, field: &mut Field) {
        for marker in &source.markers {
            if let Some(default) = marker.strip_prefix("default=") {
                let json = match default.strip_prefix("ref(").and_then(|rest| rest.strip_suffix(')')) {
                    Some(constant) => match self.packages.constant(package, constant) {
                        Some(value) => Value::from(value).to_string(),
                        None => {
                            self.problem(&source.json, "default refers to an unknown constant");
                            continue;
                        }
                    },
                    None => default.to_owned(),
                };
                // A zero in a field that is no pointer is what Go writes anyway and no default.
                if field.pointer || !matches!(json.as_str(), "\"\"" | "0" | "false") {
                    field.default = Some(json);
                }
                continue;
            }
            let rule = match marker.strip_prefix("k8s:alpha(").and_then(|rest| rest.split_once(")=+k8s:")) {
                Some((_, rule)) => rule,
                None => match marker.strip_prefix("k8s:") {
                    Some(rule) => rule,
                    None => continue,
                },
            };
            let (name, value) = rule.split_once('=').unwrap_or((rule, ""));
            if name == "immutable" {
                field.immutable = true;
            } else if RULES.contains(&name) && !value.contains(' ') {
                field.rules.insert(format!("{name}={}", value.trim_matches('"')));
            }
        }
    }

    fn attributes(&mut self, name: &str, property: &Value, field: &mut Field) {
        let text = |key: &str| property.get(key).and_then(Value::as_str);
        let seen = openapi_expression(property);
        if seen != without_wire(&field.expression) {
            self.problem(name, &format!("is {seen} in OpenAPI and {} in Go", field.expression));
        }
        field.atomic = text("x-kubernetes-map-type") == Some("atomic");
        field.list = match text("x-kubernetes-list-type") {
            Some("map") => {
                let keys: Vec<&str> = property
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                Some(format!("map:{}", keys.join(",")))
            }
            other => other.map(str::to_owned),
        };
        field.patch = text("x-kubernetes-patch-strategy").map(|strategy| match text("x-kubernetes-patch-merge-key") {
            Some(key) => format!("{strategy}:{key}"),
            None => strategy.to_owned(),
        });
        field.format = text("format")
            .filter(|format| !matches!(*format, "int32" | "int64" | "double" | "byte"))
            .map(str::to_owned);
    }

    /// Numbers, names and wire types of the Go tags must be those of the proto file, and no proto field may be left over.
    fn check_wire(&mut self, message: &str, wire: &BTreeMap<u32, (&super::go::Field, String)>) {
        let Some(known) = self.messages.of_definition(message) else {
            if !wire.is_empty() {
                self.problem("", &format!("no proto message {message}"));
            }
            return;
        };
        for (number, (source, expression)) in wire {
            let name = if source.json.is_empty() { &source.ty } else { &source.json };
            let Some(proto) = known.get(number) else {
                self.problem(name, "has a wire number the proto file does not know");
                continue;
            };
            if !source.proto_name.is_empty() && proto.name != source.proto_name {
                self.problem(
                    name,
                    &format!("wire field {number} is {} in Go and {} in proto", source.proto_name, proto.name),
                );
            }
            if wire_of(expression) != (proto.repeated, proto.ty) {
                self.problem(
                    name,
                    &format!("is {expression} in Go and {} (repeated: {}) in proto", proto.ty, proto.repeated),
                );
            }
        }
        for (number, proto) in known {
            if !wire.contains_key(number) {
                self.problem(&proto.name, "in proto and not in Go");
            }
        }
    }
}

/// The type as the table writes it.
fn expression(resolved: &Resolved) -> String {
    match resolved {
        Resolved::Basic(name) if name == "float64" => "double".to_owned(),
        Resolved::Basic(name) => name.clone(),
        Resolved::Named(package, name) if package == "io.k8s.apimachinery.pkg.apis.meta.v1" && name == "Duration" => {
            "duration".to_owned()
        }
        Resolved::Named(package, name) => format!("{package}.{name}"),
        Resolved::List(inner) => format!("[]{}", expression(inner)),
        Resolved::WrappedList(inner) => format!("<>{}", expression(inner)),
        Resolved::Map(inner) => format!("{{}}{}", expression(inner)),
        Resolved::Bytes => "bytes".to_owned(),
    }
}

/// The same type as far as OpenAPI can tell.
fn without_wire(expression: &str) -> String {
    let expression = expression.replace("<>", "[]");
    match expression.strip_suffix("duration") {
        Some(prefix) if prefix.is_empty() || prefix.ends_with(']') || prefix.ends_with('}') => {
            format!("{prefix}string")
        }
        _ => expression,
    }
}

fn openapi_expression(property: &Value) -> String {
    if let Some(reference) = property.get("$ref").and_then(Value::as_str) {
        return reference.trim_start_matches("#/definitions/").to_owned();
    }
    let text = |key: &str| property.get(key).and_then(Value::as_str).unwrap_or_default();
    let inner = |key: &str| property.get(key).map_or_else(|| "?".to_owned(), openapi_expression);
    match (text("type"), text("format")) {
        ("array", _) => format!("[]{}", inner("items")),
        ("object", _) => format!("{{}}{}", inner("additionalProperties")),
        ("string", "byte") => "bytes".to_owned(),
        ("boolean", _) => "bool".to_owned(),
        ("number", _) => "double".to_owned(),
        ("integer", format) => format.to_owned(),
        (ty, _) => ty.to_owned(),
    }
}

/// Repeated or not, and the wire type of a table expression.
fn wire_of(expression: &str) -> (bool, &'static str) {
    if let Some(inner) = expression.strip_prefix("[]") {
        return (true, wire_of(inner).1);
    }
    if expression.starts_with("{}") {
        return (true, "message");
    }
    let ty = match expression {
        "bool" => "bool",
        "int32" => "int32",
        "int64" => "int64",
        "double" => "double",
        "string" => "string",
        "bytes" => "bytes",
        _ => "message",
    };
    (false, ty)
}
