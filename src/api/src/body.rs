//! Request bodies: JSON, YAML and protobuf into one checked document, and patches applied to one.

use bytes::Bytes;
use quilt_objects::decode::{self, DecodeError, Decoded};
use quilt_objects::kind::{Origin, Target};
use quilt_objects::registry::registry;
use serde_json::Value;

use crate::negotiate::{BodyType, body_type};
use crate::problem::Problem;
use crate::request::Call;

/// Media types a body may have.
const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        error.status().into()
    }
}

/// Decodes a request's body, which must hold what `target` says.
pub(crate) fn decode(call: &Call, bytes: &Bytes, target: Target<'_>) -> Result<Decoded, Problem> {
    let validation = call.query.field_validation()?;
    let unsupported = || Problem::unsupported_media_type(&ACCEPTED);
    match body_type(&call.headers).map_err(|_| unsupported())? {
        BodyType::Json => Ok(decode::json(target, bytes, validation)?),
        BodyType::Yaml => Ok(decode::value(target, yaml_document(bytes)?, validation)?),
        // Custom objects have no wire form.
        BodyType::Protobuf if call.kind.origin == Origin::Custom => Err(unsupported()),
        BodyType::Protobuf => Ok(decode::protobuf(registry(), target, bytes)?),
    }
}

/// Decodes the body of a DELETE. Clients write it in whatever group and version they are talking to.
pub(crate) fn delete_options(call: &Call, bytes: &Bytes) -> Result<Value, Problem> {
    let target = registry().delete_options();
    let first = match decode(call, bytes, target) {
        Ok(decoded) => return Ok(decoded.object),
        Err(problem) => problem,
    };
    let others = [(&*call.kind.group, &*call.kind.version), ("meta.k8s.io", "v1")];
    others
        .into_iter()
        .find_map(|(group, version)| decode(call, bytes, Target { group, version, ..target }).ok())
        .map(|decoded| decoded.object)
        .ok_or(first)
}

/// One YAML document, which may as well be JSON.
pub(crate) fn yaml_document(bytes: &Bytes) -> Result<Value, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::bad_request("the body is not UTF-8 text"))?;
    serde_saphyr::from_str(text).map_err(|error| Problem::bad_request(format!("the body is not valid YAML: {error}")))
}
