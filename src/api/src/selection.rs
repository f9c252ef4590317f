//! [`Selection`]: which records of a collection a list or watch shows, judged on stored bytes with as little parsing
//! as the selectors allow.

use quilt_objects::convert;
use quilt_objects::kind::Kind;
use quilt_objects::select::field::Wanted;
use quilt_objects::select::{FieldSelector, LabelSelector};
use quilt_proto::{Key, KeyPrefix, Record};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::problem::Problem;
use crate::query::ListOptions;
use crate::request::Call;

/// Label and field selectors of one request.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Values every match has somewhere in its bytes: a cheap no before a parse.
    needles: Vec<Vec<u8>>,
    needs_document: bool,
}

/// All that label selectors look at.
#[derive(Deserialize)]
struct Labelled {
    #[serde(default)]
    metadata: Labels,
}

#[derive(Deserialize, Default)]
struct Labels {
    #[serde(default)]
    labels: Option<Map<String, Value>>,
}

impl Selection {
    /// Parses the selectors of a request.
    pub(crate) fn parse(kind: &'static Kind, options: &ListOptions) -> Result<Self, Problem> {
        let labels = LabelSelector::parse(&options.label_selector)
            .map_err(|error| Problem::bad_request(format!("labelSelector: {error}")))?;
        let fields = FieldSelector::parse(&options.field_selector, kind)
            .map_err(|error| Problem::bad_request(format!("fieldSelector: {error}")))?;
        let by_key = |field: &str| field == "metadata.name" || field == "metadata.namespace";
        let needs_document = fields.terms().iter().any(|term| !by_key(&term.field));
        let needles = fields
            .terms()
            .iter()
            .filter(|term| term.wanted == Wanted::Equal && !by_key(&term.field))
            .filter(|term| {
                term.value.len() > 2
                    && term.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte))
            })
            // Defaults stand for absent fields only as "", true, false and numbers, which are never looked for here.
            .filter(|term| !matches!(term.value.as_str(), "true" | "false") && term.value.parse::<f64>().is_err())
            .filter(|term| kind_stores(&term.field))
            .map(|term| term.value.clone().into_bytes())
            .collect();
        Ok(Self { kind, labels, fields, needles, needs_document })
    }

    /// Whether everything is shown.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The keys that can match at all: one object when its name is asked for.
    pub(crate) fn prefix(&self, call: &Call) -> Result<KeyPrefix, Problem> {
        if let Some(name) = self.fields.required("metadata.name")
            && (!call.kind.is_namespaced() || !call.namespace.is_empty())
        {
            return Ok(KeyPrefix::exact(&call.key(name)?));
        }
        call.prefix()
    }

    /// Whether a record is shown. A record that cannot be read is an error, never left out.
    pub(crate) fn matches(&self, key: &Key, record: &Record) -> Result<bool, Problem> {
        if self.is_everything() {
            return Ok(true);
        }
        let corrupt =
            |error: serde_json::Error| Problem::internal(&format!("stored object {key:?} is corrupt: {error}"));
        if self.needs_document {
            if !self.needles.iter().all(|needle| contains(&record.value, needle)) {
                return Ok(false);
            }
            let mut object: Value = serde_json::from_slice(&record.value).map_err(corrupt)?;
            convert::to_served(self.kind, &mut object);
            return Ok(self.labels.matches_object(&object) && self.fields.matches(&object));
        }
        let parts = key.parts();
        let by_key = self.fields.matches_with(|field| match field {
            "metadata.name" => parts.name.into(),
            _ => parts.namespace.into(),
        });
        if !by_key || self.labels.is_everything() {
            return Ok(by_key);
        }
        let labelled: Labelled = serde_json::from_slice(&record.value).map_err(corrupt)?;
        Ok(self.labels.matches(labelled.metadata.labels.as_ref()))
    }
}

/// Whether the field's value stands in the bytes as it is selected by; derived ones do not.
fn kind_stores(field: &str) -> bool {
    field == "spec.nodeName"
}

/// Whether `bytes` contain `needle`.
fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some((first, tail)) = needle.split_first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at + 1..).unwrap_or_default();
        if rest.starts_with(tail) {
            return true;
        }
    }
    false
}
