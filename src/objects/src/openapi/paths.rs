//! Paths of a document: which requests a kind takes, on its collection, its objects and their subresources.

use serde_json::{Map, Value, json};

use super::{gvk_value, put, reference};
use crate::kind::{Kind, Subresource, Verb};
use crate::schema::Gvk;

/// Media types of patches.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// One operation before it is written out.
struct Operation<'a> {
    method: &'a str,
    action: &'a str,
    /// What is read or written.
    gvk: Gvk,
    /// Definition of the answer, empty when it is not described.
    answer: String,
    body: Body,
    query: &'a [(&'a str, &'a str)],
    id: String,
}

enum Body {
    None,
    Object(String),
    Patch,
}

const WRITE: [(&str, &str); 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("pretty", "string")];
const PATCH: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
    ("pretty", "string"),
];
const DELETE: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("pretty", "string"),
];
const LIST: [(&str, &str); 11] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("pretty", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const GET: [(&str, &str); 1] = [("pretty", "string")];

/// Adds the paths of `kind`.
pub(super) fn add(kind: &Kind, paths: &mut Map<String, Value>) {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let own = Gvk { group: kind.group.clone(), version: kind.version.clone(), kind: kind.kind.clone() };
    let name = kind.node().ty().name.clone().into_owned();
    let list = if kind.list_kind.is_empty() { String::new() } else { sibling(&name, &kind.list_kind) };
    let list = if kind.types.id(&list).is_some() { list } else { String::new() };
    let collection = if kind.is_namespaced() {
        if kind.allows(Verb::List) {
            let all = format!("{root}/{}", kind.plural);
            let id = format!("{}ForAllNamespaces", id("list", kind, ""));
            let operation = Operation { id, ..listing(&own, &list) };
            item(paths, &all, &[], tag(kind), [operation]);
        }
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    };
    let namespace: &[&str] = if kind.is_namespaced() { &["namespace"] } else { &[] };
    let mut on_collection = Vec::new();
    if kind.allows(Verb::List) {
        on_collection.push(Operation { id: id("list", kind, ""), ..listing(&own, &list) });
    }
    if kind.allows(Verb::Create) {
        on_collection.push(operation(kind, Verb::Create, "", &own, &name));
    }
    if kind.allows(Verb::DeleteCollection) {
        let answer = STATUS.to_owned();
        on_collection.push(Operation {
            answer,
            query: &LIST,
            ..operation(kind, Verb::DeleteCollection, "", &own, &name)
        });
    }
    item(paths, &collection, namespace, tag(kind), on_collection);
    let object = format!("{collection}/{{name}}");
    let with_name: Vec<&str> = namespace.iter().copied().chain(["name"]).collect();
    let verbs = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
    let on_object =
        verbs.into_iter().filter(|verb| kind.allows(*verb)).map(|verb| operation(kind, verb, "", &own, &name));
    item(paths, &object, &with_name, tag(kind), on_object);
    for sub in &kind.subresources {
        let body = subresource_type(kind, sub);
        let on_sub = sub.verbs.iter().map(|verb| operation(kind, *verb, &sub.name, &sub.kind, &body));
        item(paths, &format!("{object}/{}", sub.name), &with_name, tag(kind), on_sub);
    }
}

/// Definition of another type of the same package.
fn sibling(name: &str, kind: &str) -> String {
    name.rsplit_once('.').map_or_else(|| kind.to_owned(), |(package, _)| format!("{package}.{kind}"))
}

fn subresource_type(kind: &Kind, sub: &Subresource) -> String {
    let found = kind.types.types().find(|(_, ty)| ty.gvks.contains(&sub.kind));
    found.map(|(_, ty)| ty.name.clone().into_owned()).unwrap_or_default()
}

fn tag(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    format!("{group}_{}", kind.version)
}

/// An operation's id, unique in its document.
fn id(action: &str, kind: &Kind, sub: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
    };
    let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    let namespaced = if kind.is_namespaced() { "Namespaced" } else { "" };
    format!("{action}{}{}{namespaced}{}{}", capital(group), capital(&kind.version), kind.kind, capital(sub))
}

fn listing(own: &Gvk, list: &str) -> Operation<'static> {
    Operation {
        method: "get",
        action: "list",
        gvk: own.clone(),
        answer: list.to_owned(),
        body: Body::None,
        query: &LIST,
        id: String::new(),
    }
}

fn operation(kind: &Kind, verb: Verb, sub: &str, gvk: &Gvk, name: &str) -> Operation<'static> {
    let object = Body::Object(name.to_owned());
    let (method, action, word, body, query): (_, _, _, _, &'static [(&'static str, &'static str)]) = match verb {
        Verb::Create => ("post", "post", "create", object, &WRITE),
        Verb::Update => ("put", "put", "replace", object, &WRITE),
        Verb::Patch => ("patch", "patch", "patch", Body::Patch, &PATCH),
        Verb::Delete => ("delete", "delete", "delete", Body::Object(DELETE_OPTIONS.to_owned()), &DELETE),
        Verb::DeleteCollection => {
            ("delete", "deletecollection", "deleteCollection", Body::Object(DELETE_OPTIONS.to_owned()), &DELETE)
        }
        Verb::Get | Verb::List | Verb::Watch => ("get", "get", "read", Body::None, &GET),
    };
    let answer = if verb == Verb::Delete { STATUS.to_owned() } else { name.to_owned() };
    Operation { method, action, gvk: gvk.clone(), answer, body, query, id: id(word, kind, sub) }
}

/// Writes the operations of one path.
fn item<'a>(
    paths: &mut Map<String, Value>,
    path: &str,
    parameters: &[&str],
    tag: String,
    operations: impl IntoIterator<Item = Operation<'a>>,
) {
    let mut out = json!({});
    let tags = vec![Value::from(tag)];
    for Operation { method, action, gvk, answer, body, query, id } in operations {
        let described = if answer.is_empty() { json!({"type": "object"}) } else { reference(&answer) };
        let content = json!({"application/json": {"schema": described}});
        let status = if method == "post" { "201" } else { "200" };
        let mut operation = json!({"operationId": id, "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk_value(&gvk)});
        put(&mut operation, "responses", json!({status: {"description": "OK", "content": content}}));
        put(&mut operation, "tags", tags.clone());
        let query: Vec<Value> = query
            .iter()
            .map(|(name, word)| json!({"name": name, "in": "query", "schema": {"type": word, "uniqueItems": true}}))
            .collect();
        put(&mut operation, "parameters", query);
        let content: Map<String, Value> = match body {
            Body::None => Map::new(),
            Body::Object(name) if name.is_empty() => Map::new(),
            Body::Object(name) => [("*/*".to_owned(), json!({"schema": reference(&name)}))].into_iter().collect(),
            Body::Patch => {
                PATCHES.iter().map(|media| ((*media).to_owned(), json!({"schema": {"type": "object"}}))).collect()
            }
        };
        if !content.is_empty() {
            put(&mut operation, "requestBody", json!({"content": content, "required": method != "delete"}));
        }
        put(&mut out, method, operation);
    }
    if out.as_object().is_none_or(Map::is_empty) {
        return;
    }
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    if !parameters.is_empty() {
        put(&mut out, "parameters", parameters);
    }
    paths.insert(path.to_owned(), out);
}
