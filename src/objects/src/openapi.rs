//! OpenAPI v3: one document per group and version, made from the kinds table, for `kubectl apply`, `explain` and diff.
//!
//! Structure comes from the types alone; sentences come from whoever calls, since this crate carries none.

mod paths;
mod sentences;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::discovery::Catalogue;
use crate::registry::KUBERNETES_VERSION;
use crate::schema::{Field, Gvk, ListType, Node, Object, Shape, TypeId, UnknownFields};

/// Gives the description of a definition, or of one of its fields.
pub type Describe<'d> = dyn Fn(&str, Option<&str>) -> Option<String> + 'd;

/// Names of bodies that every group and version may need.
pub(crate) const SHARED: [&str; 2] =
    ["io.k8s.apimachinery.pkg.apis.meta.v1.Status", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];

/// The document of one group and version, without descriptions.
pub fn v3<'a>(catalogue: impl Into<Catalogue<'a>>, group: &str, version: &str) -> Value {
    v3_described(catalogue, group, version, &|_, _| None)
}

/// The document of one group and version. What `describe` does not know and is ours is described here.
pub fn v3_described<'a>(
    catalogue: impl Into<Catalogue<'a>>,
    group: &str,
    version: &str,
    describe: &Describe<'_>,
) -> Value {
    let kinds = catalogue.into().of(group, version);
    let describe = |definition: &str, field: Option<&str>| {
        describe(definition, field).or_else(|| sentences::own(definition, field))
    };
    let mut schemas = Schemas { describe: &describe, made: BTreeMap::new() };
    let mut all_paths = Map::new();
    for kind in &kinds {
        schemas.add(kind.node());
        let gvk = |gvk: &Gvk| (gvk.group.clone(), gvk.version.clone(), gvk.kind.clone());
        let mut wanted: Vec<_> = kind.subresources.iter().map(|sub| gvk(&sub.kind)).collect();
        if !kind.list_kind.is_empty() {
            wanted.push((kind.group.clone(), kind.version.clone(), kind.list_kind.clone()));
        }
        for (_, ty) in kind.types.types() {
            let known = |own: &Gvk| wanted.contains(&gvk(own));
            if ty.gvks.iter().any(known)
                && let Some(node) = kind.types.named(&ty.name)
            {
                schemas.add(node);
            }
        }
        for name in SHARED {
            if let Some(node) = crate::registry::registry().types().named(name) {
                schemas.add(node);
            }
        }
        paths::add(kind, &mut all_paths);
    }
    let (major, minor) = KUBERNETES_VERSION;
    let mut document =
        json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": format!("v{major}.{minor}.0")}});
    let mut components = Map::new();
    components.insert("schemas".to_owned(), schemas.made.into_iter().collect());
    let bearer = json!({"type": "apiKey", "description": "Bearer token authentication", "name": "authorization", "in": "header"});
    components.insert("securitySchemes".to_owned(), json!({"BearerToken": bearer}));
    crate::place::set(&mut document, &["paths"], all_paths);
    crate::place::set(&mut document, &["components"], components);
    document
}

/// The index: where the document of each group and version is, named by its hash so that it can be kept for ever.
/// `prefix` is the path of the cluster, empty at the root.
#[must_use]
pub fn index<'a>(prefix: &str, documents: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Value {
    let mut paths = Map::new();
    for (group, version, hash) in documents {
        let name = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let url = format!("{prefix}/openapi/v3/{name}?hash={hash}");
        paths.insert(name, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// Path of a component.
pub(crate) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

struct Schemas<'d> {
    describe: &'d Describe<'d>,
    made: BTreeMap<String, Value>,
}

impl Schemas<'_> {
    /// Adds a named type and everything it refers to.
    fn add(&mut self, node: Node<'_>) {
        let mut open = vec![node.id()];
        while let Some(id) = open.pop() {
            let node = node.at(id);
            let ty = node.ty();
            if ty.name.is_empty() || self.made.contains_key(&*ty.name) {
                continue;
            }
            let mut refers_to = Vec::new();
            let mut schema = self.shape(node, &mut refers_to);
            if let Some(text) = (self.describe)(&ty.name, None) {
                put(&mut schema, "description", text);
            }
            if ty.atomic {
                put(&mut schema, "x-kubernetes-map-type", "atomic");
            }
            if !ty.gvks.is_empty() {
                let gvks: Vec<Value> = ty.gvks.iter().map(gvk_value).collect();
                put(&mut schema, "x-kubernetes-group-version-kind", gvks);
            }
            self.made.insert(ty.name.clone().into_owned(), schema);
            open.extend(refers_to);
        }
    }

    /// The schema of what is at `node`, its own fields written out; named types below are references.
    fn shape(&self, node: Node<'_>, refers_to: &mut Vec<TypeId>) -> Value {
        match node.shape() {
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::String | Shape::Duration => json!({"type": "string"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            Shape::IntOrString => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
            }
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
            Shape::RawExtension | Shape::FieldsV1 => json!({"type": "object"}),
            Shape::Json | Shape::OrArray(_) | Shape::OrBool(_) | Shape::OrStrings(_) => json!({}),
            Shape::List(element, _) => self.holder("array", "items", node.at(*element), refers_to),
            Shape::Map(element) => self.holder("object", "additionalProperties", node.at(*element), refers_to),
            Shape::Object(object) => self.object(node, object, refers_to),
        }
    }

    fn holder(&self, kind: &str, key: &str, element: Node<'_>, refers_to: &mut Vec<TypeId>) -> Value {
        let mut out = json!({"type": kind});
        put(&mut out, key, self.used(element, refers_to));
        out
    }

    /// A type where it is used: a reference when it has a name.
    fn used(&self, node: Node<'_>, refers_to: &mut Vec<TypeId>) -> Value {
        let name = &node.ty().name;
        if name.is_empty() {
            return self.shape(node, refers_to);
        }
        refers_to.push(node.id());
        json!({"allOf": [reference(name)]})
    }

    fn object(&self, node: Node<'_>, object: &Object, refers_to: &mut Vec<TypeId>) -> Value {
        let mut out = json!({"type": "object"});
        let mut properties = Map::new();
        for field in object.fields() {
            let schema = self.field(node, field, refers_to);
            properties.insert(field.name.clone().into_owned(), schema);
        }
        if !properties.is_empty() {
            put(&mut out, "properties", properties);
        }
        let required: Vec<Value> =
            object.fields().iter().filter(|field| field.required).map(|field| Value::from(&*field.name)).collect();
        if !required.is_empty() {
            put(&mut out, "required", required);
        }
        if object.unknown() == UnknownFields::Preserve {
            put(&mut out, "x-kubernetes-preserve-unknown-fields", true);
        }
        out
    }

    fn field(&self, holder: Node<'_>, field: &Field, refers_to: &mut Vec<TypeId>) -> Value {
        let mut out = self.used(holder.at(field.ty), refers_to);
        if let Some(text) = (self.describe)(&holder.ty().name, Some(&field.name)) {
            put(&mut out, "description", text);
        }
        if !field.format.is_empty() && out.get("type").is_some() {
            put(&mut out, "format", &*field.format);
        }
        if let Some(default) = &field.default {
            put(&mut out, "default", default.clone());
        }
        if !field.enumeration.is_empty() {
            let words: Vec<Value> = field.enumeration.iter().map(|word| Value::from(&**word)).collect();
            // The words of a list are those of its items.
            match out.get_mut("items") {
                Some(items) => put(items, "enum", words),
                None => put(&mut out, "enum", words),
            }
        }
        match &field.list_type {
            Some(ListType::Atomic) => put(&mut out, "x-kubernetes-list-type", "atomic"),
            Some(ListType::Set) => put(&mut out, "x-kubernetes-list-type", "set"),
            Some(ListType::Map(keys)) => {
                put(&mut out, "x-kubernetes-list-type", "map");
                let keys: Vec<Value> = keys.iter().map(|key| Value::from(&**key)).collect();
                put(&mut out, "x-kubernetes-list-map-keys", keys);
            }
            None => {}
        }
        if field.atomic {
            put(&mut out, "x-kubernetes-map-type", "atomic");
        }
        let strategy = match (field.patch.merge, field.patch.retain_keys) {
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => "",
        };
        if !strategy.is_empty() {
            put(&mut out, "x-kubernetes-patch-strategy", strategy);
        }
        if !field.patch.merge_key.is_empty() {
            put(&mut out, "x-kubernetes-patch-merge-key", &*field.patch.merge_key);
        }
        out
    }
}

pub(crate) fn gvk_value(gvk: &Gvk) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

pub(crate) fn put(schema: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = schema.as_object_mut() {
        map.insert(key.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::registry;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value.as_str().filter(|_| key == "$ref") {
                        Some(text) => found.push(text.trim_start_matches("#/components/schemas/").to_owned()),
                        None => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    /// Every document is closed under references, and every kind has its schema and, where it can be patched, a PATCH
    /// that says `fieldValidation`.
    #[test]
    fn every_kind_is_described() {
        for (group, version) in registry().group_versions() {
            let document = v3(registry(), group, version);
            let schemas = document["components"]["schemas"].as_object().expect("schemas");
            let mut found = Vec::new();
            references(&document, &mut found);
            for name in found {
                assert!(schemas.contains_key(&name), "{group}/{version}: {name} is referred to and missing");
            }
            for kind in registry().kinds_of(group, version) {
                let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
                let has_gvk = |schema: &Value| {
                    schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|gvks| gvks.contains(&gvk))
                };
                assert!(schemas.values().any(has_gvk), "{gvk}");
                let paths = document["paths"].as_object().expect("paths");
                let patch = paths
                    .values()
                    .map(|item| &item["patch"])
                    .find(|patch| patch["x-kubernetes-group-version-kind"] == gvk);
                let can = kind.allows(crate::kind::Verb::Patch);
                assert_eq!(patch.is_some(), can, "{gvk}");
                let says = |patch: &Value| {
                    patch["parameters"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| one["name"] == json!("fieldValidation")))
                };
                assert!(patch.is_none_or(says), "{gvk}");
            }
        }
    }

    /// Fields carry what clients merge by, and the sentences of whoever describes.
    #[test]
    fn fields_carry_topology_and_descriptions() {
        let describe = |name: &str, field: Option<&str>| Some(format!("{name} {}", field.unwrap_or("itself")));
        let document = v3_described(registry(), "apps", "v1", &describe);
        let schemas = &document["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(
            *containers,
            json!({"type": "array", "items": {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]},
                "description": "io.k8s.api.core.v1.PodSpec containers", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"], "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"})
        );
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["description"], json!("io.k8s.api.apps.v1.Deployment itself"));
        let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
        assert_eq!(spec["required"], json!(["selector", "template"]));
        assert_eq!(spec["properties"]["replicas"]["format"], json!("int32"));
        assert_eq!(
            spec["properties"]["template"]["allOf"],
            json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodTemplateSpec"}])
        );
    }

    /// The index names documents by hash under the cluster's path.
    #[test]
    fn index_names_documents() {
        assert_eq!(
            index("/clusters/c", [("", "v1", "AB"), ("apps", "v1", "CD")]),
            json!({"paths": {"api/v1": {"serverRelativeURL": "/clusters/c/openapi/v3/api/v1?hash=AB"},
                "apis/apps/v1": {"serverRelativeURL": "/clusters/c/openapi/v3/apis/apps/v1?hash=CD"}}})
        );
    }
}
