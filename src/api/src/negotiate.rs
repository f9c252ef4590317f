//! Content negotiation: which form an answer takes (`Accept`) and which form a body has (`Content-Type`).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

/// The encoding of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

impl Encoding {
    /// The `Content-Type` of answers in this encoding.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What an answer shows of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The objects themselves.
    Object,
    /// `meta.k8s.io` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata or its list.
    Metadata,
}

/// The agreed form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Encoding.
    pub encoding: Encoding,
    /// Shape.
    pub shape: Shape,
}

impl Form {
    /// Plain JSON objects.
    pub const JSON: Self = Self { encoding: Encoding::Json, shape: Shape::Object };
}

/// No entry of the Accept header can be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "only the following media types are accepted: application/json, application/yaml, application/json;as=Table;v=v1;g=meta.k8s.io"
)]
pub struct NotAcceptable;

/// Which shapes an endpoint can give besides plain objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shapes {
    /// Plain objects only (writes of subresources, reviews, Status).
    ObjectOnly,
    /// Table and PartialObjectMetadata too.
    All,
}

/// Chooses the form of an answer by the Accept header, highest quality first, in the order given.
///
/// # Errors
/// [`NotAcceptable`] when nothing in the header can be served.
pub fn accept(headers: &HeaderMap, shapes: Shapes) -> Result<Form, NotAcceptable> {
    let Some(entries) = entries(headers) else { return Ok(Form::JSON) };
    entries.iter().find_map(|entry| form_of(entry, shapes)).ok_or(NotAcceptable)
}

/// The form of discovery answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryForm {
    /// `APIGroupDiscoveryList` of apidiscovery.k8s.io/v2.
    Aggregated,
    /// `APIVersions`, `APIGroupList`.
    Legacy,
}

/// Chooses between both discovery forms.
///
/// # Errors
/// [`NotAcceptable`] when nothing in the header can be served.
pub fn accept_discovery(headers: &HeaderMap) -> Result<DiscoveryForm, NotAcceptable> {
    let Some(entries) = entries(headers) else { return Ok(DiscoveryForm::Legacy) };
    entries
        .iter()
        .find_map(|entry| {
            if !entry.is_json() {
                return None;
            }
            match entry.parameter("as") {
                None => Some(DiscoveryForm::Legacy),
                Some("APIGroupDiscoveryList")
                    if entry.parameter("v") == Some("v2") && entry.parameter("g") == Some("apidiscovery.k8s.io") =>
                {
                    Some(DiscoveryForm::Aggregated)
                }
                Some(_) => None,
            }
        })
        .ok_or(NotAcceptable)
}

/// How a request body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyType {
    /// JSON; also an absent Content-Type.
    Json,
    /// YAML.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// The kinds of PATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386; also a PATCH without content type, or with `application/json`.
    Merge,
    /// Kubernetes' strategic merge.
    Strategic,
    /// Server-side apply; the body is YAML, of which JSON is a part.
    Apply,
}

/// The body's encoding.
///
/// # Errors
/// The media type, when it is none of those.
pub fn body_type(headers: &HeaderMap) -> Result<BodyType, String> {
    match content_type(headers).as_str() {
        "" | "*/*" | "application/json" => Ok(BodyType::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(BodyType::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyType::Protobuf),
        // Tools that send a form's default type with a JSON body exist; the body decides.
        "application/x-www-form-urlencoded" | "text/plain" => Ok(BodyType::Json),
        other => Err(other.into()),
    }
}

/// The kind of a PATCH body.
///
/// # Errors
/// The media type, when it is none of those.
pub fn patch_type(headers: &HeaderMap) -> Result<PatchType, String> {
    match content_type(headers).as_str() {
        "" | "*/*" | "application/json" | "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        other => Err(other.into()),
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// One entry of an Accept header.
#[derive(Debug)]
struct Entry {
    media: String,
    parameters: Vec<(String, String)>,
    /// Quality in thousandths.
    quality: u32,
}

impl Entry {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn is_json(&self) -> bool {
        matches!(self.media.as_str(), "*/*" | "application/*" | "application/json")
    }
}

/// Entries a client may list; more than any real one, few enough to walk.
const ENTRIES_MAX: usize = 64;

/// The acceptable entries, best first; `None` when the client names nothing at all.
fn entries(headers: &HeaderMap) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .take(ENTRIES_MAX)
        .map(entry)
        .collect();
    if entries.is_empty() {
        return None;
    }
    entries.retain(|entry| entry.quality > 0);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.quality));
    Some(entries)
}

fn entry(text: &str) -> Entry {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut parameters = Vec::new();
    let mut quality = 1000;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("q") {
            quality = thousandths(value);
        } else {
            parameters.push((name.trim().to_ascii_lowercase(), value.to_owned()));
        }
    }
    Entry { media, parameters, quality }
}

/// `0.8` as 800; anything unreadable counts as full quality.
fn thousandths(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole.parse::<u32>(), digits.parse::<u32>()) {
        (Ok(whole), Ok(fraction)) => (whole.min(1) * 1000 + fraction).min(1000),
        _ => 1000,
    }
}

fn form_of(entry: &Entry, shapes: Shapes) -> Option<Form> {
    let encoding = match entry.media.as_str() {
        "*/*" | "application/*" | "application/json" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let shape = match entry.parameter("as") {
        None => Shape::Object,
        Some("Table") => Shape::Table,
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Shape::Metadata,
        Some(_) => return None,
    };
    if shape != Shape::Object {
        let group = entry.parameter("g") == Some("meta.k8s.io");
        let version = entry.parameter("v") == Some("v1");
        if shapes == Shapes::ObjectOnly || !group || !version {
            return None;
        }
    }
    Some(Form { encoding, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header"))])
    }

    /// What real clients send, and the form each gets.
    #[test]
    fn accept_headers() {
        let json = Form::JSON;
        let table = Form { shape: Shape::Table, ..json };
        let metadata = Form { shape: Shape::Metadata, ..json };
        let yaml = Form { encoding: Encoding::Yaml, ..json };
        let cases = [
            ("*/*", Some(json)),
            ("application/vnd.kubernetes.protobuf,application/json", Some(json)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(table),
            ),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Some(json)),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Some(metadata),
            ),
            ("application/yaml", Some(yaml)),
            ("application/json;q=0.5, application/yaml;q=0.9", Some(yaml)),
            ("application/cbor", None),
            ("text/html", None),
            ("application/json;q=0", None),
        ];
        for (value, expected) in cases {
            let found = accept(&headers(ACCEPT, value), Shapes::All).ok();
            assert_eq!(found, expected, "{value}");
        }
        let only_table = headers(ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io");
        assert_eq!(accept(&only_table, Shapes::ObjectOnly), Err(NotAcceptable));
        assert_eq!(accept(&HeaderMap::new(), Shapes::All), Ok(json));
    }

    /// kubectl's discovery header gets the aggregated form, with or without a profile; plain clients the lists.
    #[test]
    fn discovery_headers() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(accept_discovery(&headers(ACCEPT, kubectl)), Ok(DiscoveryForm::Aggregated));
        let no_peers = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer";
        assert_eq!(accept_discovery(&headers(ACCEPT, no_peers)), Ok(DiscoveryForm::Aggregated));
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(accept_discovery(&headers(ACCEPT, old)), Ok(DiscoveryForm::Legacy));
        assert_eq!(accept_discovery(&HeaderMap::new()), Ok(DiscoveryForm::Legacy));
    }

    /// Body types, parameters ignored; a PATCH without a type is a merge patch.
    #[test]
    fn content_types() {
        assert_eq!(body_type(&HeaderMap::new()), Ok(BodyType::Json));
        assert_eq!(body_type(&headers(CONTENT_TYPE, "application/json; charset=utf-8")), Ok(BodyType::Json));
        assert_eq!(body_type(&headers(CONTENT_TYPE, "application/cbor")), Err("application/cbor".into()));
        assert_eq!(patch_type(&HeaderMap::new()), Ok(PatchType::Merge));
        assert_eq!(
            patch_type(&headers(CONTENT_TYPE, "application/strategic-merge-patch+json")),
            Ok(PatchType::Strategic)
        );
        assert!(patch_type(&headers(CONTENT_TYPE, "application/xml")).is_err());
    }
}
