//! How stored records become answers: whole objects from stored bytes, Tables, metadata only, JSON or YAML.
//!
//! Plain JSON of a kind without sensitive fields is never parsed: a static prefix and the stored slice are the object.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, WARNING};
use http::{HeaderValue, Response, StatusCode};
use quilt_objects::canonical::Prefix;
use quilt_objects::convert::Conversion;
use quilt_objects::kind::{Kind, Origin};
use quilt_objects::table::{self, Definitions, IncludeObject};
use quilt_proto::Record;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::context::RootKey;
use crate::negotiate::{Encoding, Form, Shape};
use crate::problem::Problem;
use crate::records;

/// Renders records of one kind for one request.
#[derive(Clone)]
pub(crate) struct Renderer {
    kind: &'static Kind,
    form: Form,
    prefix: Prefix,
    root: RootKey,
    include: IncludeObject,
    now_ms: u64,
}

/// `includeObject`.
pub(crate) fn include(text: Option<&str>) -> Result<IncludeObject, Problem> {
    let word = text.unwrap_or_default();
    if word.is_empty() {
        return Ok(IncludeObject::default());
    }
    IncludeObject::parse(word).ok_or_else(|| {
        Problem::bad_request(format!("query parameter includeObject is {word:?}, expected None, Metadata or Object"))
    })
}

/// A stored object, cut down to its metadata without building a document.
#[derive(Deserialize)]
struct MetadataOnly<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

const PARTIAL: &[u8] = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#;

impl Renderer {
    /// A renderer of `kind` in `form`.
    pub(crate) fn new(kind: &'static Kind, form: Form, include: IncludeObject, root: &RootKey, now_ms: u64) -> Self {
        let prefix = Prefix::new(&kind.api_version(), &kind.kind);
        Self { kind, form, prefix, root: root.clone(), include, now_ms }
    }

    /// The agreed form.
    pub(crate) const fn form(&self) -> Form {
        self.form
    }

    /// Appends a record as JSON: one object of its own.
    pub(crate) fn object(&self, record: &Record, out: &mut BytesMut) -> Result<(), Problem> {
        match self.form.shape {
            Shape::Object => self.whole(record, Typed::Yes, out),
            Shape::Metadata => self.metadata(record, out),
            Shape::Table => {
                let table = self.table(&self.document(record)?, Definitions::Shown);
                append(out, &table);
                Ok(())
            }
        }
    }

    /// Appends a record as JSON: one item of a list, or one row of a Table.
    pub(crate) fn item(&self, record: &Record, out: &mut BytesMut) -> Result<(), Problem> {
        match self.form.shape {
            // Items of built-in lists carry no type, as upstream; those of custom resources do.
            Shape::Object if self.kind.origin == Origin::BuiltIn => self.whole(record, Typed::No, out),
            Shape::Object => self.whole(record, Typed::Yes, out),
            Shape::Metadata => self.metadata(record, out),
            Shape::Table => {
                let row = self.row(&self.document(record)?);
                append(out, &row);
                Ok(())
            }
        }
    }

    /// Appends a watch event's object; Table column definitions only in the first event.
    pub(crate) fn event(&self, record: &Record, columns: Definitions, out: &mut BytesMut) -> Result<(), Problem> {
        if self.form.shape != Shape::Table {
            return self.object(record, out);
        }
        let table = self.table(&self.document(record)?, columns);
        append(out, &table);
        Ok(())
    }

    /// The object of a bookmark at `revision`.
    pub(crate) fn bookmark(&self, revision: u64, annotations: Option<&Value>) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if let (Some(annotations), Some(map)) = (annotations, metadata.as_object_mut()) {
            map.insert("annotations".into(), annotations.clone());
        }
        match self.form.shape {
            Shape::Object => {
                json!({"kind": &*self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            Shape::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Shape::Table => {
                let partial =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null, "rows": [{"cells": [], "object": partial}]})
            }
        }
    }

    /// What stands before the items of a list; `metadata` when it is known already.
    pub(crate) fn list_head(&self, metadata: Option<&Value>) -> String {
        let (kind, api_version) = match self.form.shape {
            Shape::Object => (self.kind.list_kind.to_string(), self.kind.api_version()),
            Shape::Metadata => ("PartialObjectMetadataList".into(), "meta.k8s.io/v1".into()),
            Shape::Table => ("Table".into(), "meta.k8s.io/v1".into()),
        };
        let mut head = format!("{{\"kind\":{},\"apiVersion\":{}", json!(kind), json!(api_version));
        if let Some(metadata) = metadata {
            head.push_str(&format!(",\"metadata\":{metadata}"));
        }
        if self.form.shape == Shape::Table {
            head.push_str(&format!(",\"columnDefinitions\":{},\"rows\":[", table::columns(self.kind)));
        } else {
            head.push_str(",\"items\":[");
        }
        head
    }

    /// What stands behind the items of a list.
    pub(crate) fn list_tail(metadata: Option<&Value>) -> String {
        metadata.map_or_else(|| "]}\n".to_owned(), |metadata| format!("],\"metadata\":{metadata}}}\n"))
    }

    fn whole(&self, record: &Record, typed: Typed, out: &mut BytesMut) -> Result<(), Problem> {
        if record.sealed.is_empty() && Conversion::of(self.kind) == Conversion::None {
            match typed {
                Typed::Yes => {
                    let (head, tail) = self.prefix.serve(&record.value);
                    out.extend_from_slice(head);
                    out.extend_from_slice(tail);
                }
                Typed::No => out.extend_from_slice(&record.value),
            }
            return Ok(());
        }
        let mut object = self.document(record)?;
        if let (Typed::No, Some(map)) = (typed, object.as_object_mut()) {
            map.remove("apiVersion");
            map.remove("kind");
        }
        append(out, &object);
        Ok(())
    }

    fn metadata(&self, record: &Record, out: &mut BytesMut) -> Result<(), Problem> {
        // Metadata may have a sealed part too.
        if !record.sealed.is_empty() {
            append(out, &table::partial_metadata(&self.document(record)?));
            return Ok(());
        }
        let object: MetadataOnly<'_> = serde_json::from_slice(&record.value).map_err(|error| {
            Problem::internal(&format!("a stored object of {} is corrupt: {error}", self.kind.plural))
        })?;
        out.extend_from_slice(PARTIAL);
        out.extend_from_slice(object.metadata.get().as_bytes());
        out.extend_from_slice(b"}");
        Ok(())
    }

    fn document(&self, record: &Record) -> Result<Value, Problem> {
        records::parse(&self.root, self.kind, record)
    }

    /// A whole object that is not (or not yet) a stored record, in the agreed shape.
    pub(crate) fn value(&self, object: &Value) -> Value {
        match self.form.shape {
            Shape::Object => object.clone(),
            Shape::Metadata => table::partial_metadata(object),
            Shape::Table => self.table(object, Definitions::Shown),
        }
    }

    fn row(&self, object: &Value) -> Value {
        table::row(self.kind, object, self.now_ms, self.include)
    }

    fn table(&self, object: &Value, columns: Definitions) -> Value {
        let version = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_else(|| "".into());
        table::table(self.kind, columns, json!({"resourceVersion": version}), vec![self.row(object)])
    }
}

/// Whether an object carries `apiVersion` and `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Typed {
    Yes,
    No,
}

fn append(out: &mut BytesMut, value: &Value) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// An answer of JSON bytes, converted where YAML was agreed on.
pub(crate) fn respond(code: StatusCode, encoding: Encoding, json: Bytes) -> Result<Response<Body>, Problem> {
    let body = match encoding {
        Encoding::Json => Body::from(json),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json).map_err(|error| Problem::internal(&error.to_string()))?;
            let text = serde_saphyr::to_string(&value).map_err(|error| Problem::internal(&error.to_string()))?;
            Body::from(text)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
    Ok(response)
}

/// An answer of one document.
pub(crate) fn respond_value(code: StatusCode, encoding: Encoding, value: &Value) -> Result<Response<Body>, Problem> {
    respond(code, encoding, Bytes::from(value.to_string()))
}

/// Warnings a header may carry; the rest is counted.
const WARNINGS_MAX: usize = 50;

/// Adds `Warning` headers.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
