//! Protobuf bodies of built-in kinds: the `k8s\0` envelope, then one walk over the table for every kind.
//!
//! The zero-value rule: Go always writes fields that are no pointers, zero or not, and pointers only when set. So a zero behind a pointer
//! was set on purpose and is kept, and a zero elsewhere is dropped where JSON would have left it out.

use serde_json::{Map, Value};

use super::check::{Misfit, is_needless, zero};
use super::json::{complete, expect_type, field_error};
use super::parse::parse;
use super::scalar::{self, Precision};
use super::wire::{Content, Reader};
use super::{DecodeError, Decoded, FieldValidation, MAX_BODY_BYTES, MAX_DEPTH, MAX_VALUES, Place};
use crate::kind::{Target, split_api_version};
use crate::registry::Registry;
use crate::schema::{Field, ListWire, Node, Object, Shape, TypeId};

/// First bytes of every protobuf body.
const MAGIC: &[u8] = b"k8s\0";

/// Whether a body starts like a protobuf envelope.
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Decodes a protobuf body that must hold an object of the expected kind. The registry gives the types of objects nested in raw fields.
pub fn protobuf<'a>(registry: &Registry, target: impl Into<Target<'a>>, body: &[u8]) -> Result<Decoded, DecodeError> {
    let target = target.into();
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge { bytes: body.len() });
    }
    let envelope = envelope(body)?;
    expect_type(target, envelope.api_version, envelope.kind)?;
    if envelope.content_type == "application/json" {
        return super::json(target, envelope.raw, FieldValidation::Ignore);
    }
    let mut walk = Walk { registry, values: 0 };
    let mut map = Map::new();
    walk.message(target.node, envelope.raw, &mut map, &Place::ROOT, 0).map_err(|fault| fault.into_error(target))?;
    let mut object = Value::Object(map);
    complete(target, &mut object);
    Ok(Decoded { object, warnings: Vec::new() })
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    content_type: &'a str,
}

fn envelope(body: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let broken = |what: &str| DecodeError::Wire(what.to_owned());
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| broken("the envelope holds a text that is not UTF-8"));
    let rest = body.strip_prefix(MAGIC).ok_or_else(|| broken("it does not start with \"k8s\\0\""))?;
    let mut found = Envelope::default();
    let mut reader = Reader::new(rest);
    while let Some((number, content)) = reader.field().map_err(broken)? {
        let Content::Bytes(bytes) = content else { continue };
        match number {
            1 => {
                let mut inner = Reader::new(bytes);
                while let Some((number, content)) = inner.field().map_err(broken)? {
                    match (number, content) {
                        (1, Content::Bytes(bytes)) => found.api_version = text(bytes)?,
                        (2, Content::Bytes(bytes)) => found.kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            2 => found.raw = bytes,
            3 if !bytes.is_empty() => return Err(broken("a content encoding is not supported")),
            4 => found.content_type = text(bytes)?,
            _ => {}
        }
    }
    match found.content_type {
        "" | "application/json" | "application/vnd.kubernetes.protobuf" => Ok(found),
        other => Err(broken(&format!("the content type {other:?} is not supported"))),
    }
}

/// Why the walk stopped.
enum Fault {
    TooDeep,
    TooMany,
    Misfit(Misfit),
}

impl Fault {
    fn into_error(self, target: Target<'_>) -> DecodeError {
        match self {
            Fault::TooDeep => DecodeError::TooDeep,
            Fault::TooMany => DecodeError::TooMany,
            Fault::Misfit(misfit) => field_error(target, misfit),
        }
    }
}

fn fault(place: &Place<'_>, problem: impl Into<String>) -> Fault {
    Fault::Misfit(Misfit { path: place.to_string(), problem: problem.into() })
}

struct Walk<'r> {
    registry: &'r Registry,
    values: usize,
}

impl Walk<'_> {
    fn count(&mut self) -> Result<(), Fault> {
        self.values += 1;
        if self.values > MAX_VALUES { Err(Fault::TooMany) } else { Ok(()) }
    }

    fn message(
        &mut self,
        node: Node<'_>,
        bytes: &[u8],
        into: &mut Map<String, Value>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<(), Fault> {
        if depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        let Some(object) = node.object() else { return Err(fault(place, "is no message")) };
        self.fields(node, object, &mut Vec::new(), bytes, into, place, depth)?;
        if into.is_empty() {
            return Ok(());
        }
        // An empty list has no form on the wire; where Go's JSON would show the field all the same, it is there.
        for field in object.fields().iter().filter(|field| field.number != 0 && !field.pointer && !field.omitempty) {
            let inner = node.at(field.ty);
            if matches!(inner.shape(), Shape::List(..) | Shape::Map(_)) && !into.contains_key(&*field.name) {
                into.insert(field.name.clone().into_owned(), zero(inner));
            }
        }
        Ok(())
    }

    /// Reads the fields of a message, or of one embedded in it at `path`.
    #[expect(clippy::too_many_arguments, reason = "one recursive step: where we are in type, message and document")]
    fn fields(
        &mut self,
        node: Node<'_>,
        object: &Object,
        path: &mut Vec<u32>,
        bytes: &[u8],
        into: &mut Map<String, Value>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<(), Fault> {
        let mut reader = Reader::new(bytes);
        while let Some((number, content)) = reader.field().map_err(|what| fault(place, what))? {
            if let Some(field) = object.wire_field(path, number) {
                self.count()?;
                let place = place.key(&field.name);
                self.field(node, field, content, into, &place, depth)?;
            } else if let Content::Bytes(inner) = content
                && path.len() < MAX_DEPTH
                && object.is_embedded(path, number)
            {
                path.push(number);
                self.fields(node, object, path, inner, into, place, depth)?;
                path.pop();
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        node: Node<'_>,
        field: &Field,
        content: Content<'_>,
        into: &mut Map<String, Value>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<(), Fault> {
        let inner = node.at(field.ty);
        let earlier = into.remove(&*field.name);
        let value = match inner.shape() {
            Shape::List(element, ListWire::Repeated) => {
                self.item(inner.at(*element), content, earlier, place, depth)?
            }
            Shape::Map(element) => self.entry(inner.at(*element), content, earlier, place, depth)?,
            Shape::Object(_) => {
                // A message that comes twice is merged, as the format demands.
                let mut map = match earlier {
                    Some(Value::Object(map)) => map,
                    _ => Map::new(),
                };
                self.message(inner, bytes_of(content, place)?, &mut map, place, depth + 1)?;
                Value::Object(map)
            }
            _ => self.value(inner, content, place, depth)?,
        };
        if !value.is_null() && !is_needless(field, inner, &value) {
            into.insert(field.name.clone().into_owned(), value);
        }
        Ok(())
    }

    fn item(
        &mut self,
        element: Node<'_>,
        content: Content<'_>,
        earlier: Option<Value>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<Value, Fault> {
        let mut items = match earlier {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        if let (Shape::Bool | Shape::Int32 | Shape::Int64, Content::Bytes(packed)) = (element.shape(), content) {
            let mut reader = Reader::new(packed);
            while let Some(number) = reader.packed().map_err(|what| fault(place, what))? {
                self.count()?;
                items.push(self.value(element, Content::Varint(number), place, depth)?);
            }
            return Ok(Value::Array(items));
        }
        let place = place.index(items.len());
        let item = self.value(element, content, &place, depth)?;
        items.push(if item.is_null() { zero(element) } else { item });
        Ok(Value::Array(items))
    }

    /// A map entry is a message of key and value.
    fn entry(
        &mut self,
        element: Node<'_>,
        content: Content<'_>,
        earlier: Option<Value>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<Value, Fault> {
        let mut map = match earlier {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let mut key = "";
        let mut value = None;
        let mut reader = Reader::new(bytes_of(content, place)?);
        while let Some((number, content)) = reader.field().map_err(|what| fault(place, what))? {
            match number {
                1 => key = text_of(content, place)?,
                2 => value = Some(content),
                _ => {}
            }
        }
        let inner = place.key(key);
        let value = match value {
            Some(content) => self.value(element, content, &inner, depth)?,
            None => zero(element),
        };
        map.insert(key.to_owned(), value);
        Ok(Value::Object(map))
    }

    /// One value of any shape but a repeated one.
    fn value(&mut self, node: Node<'_>, content: Content<'_>, place: &Place<'_>, depth: usize) -> Result<Value, Fault> {
        self.count()?;
        if depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        Ok(match node.shape() {
            Shape::Bool => Value::Bool(varint_of(content, place)? != 0),
            Shape::Int32 => {
                let int = signed(varint_of(content, place)?);
                i32::try_from(int).map_err(|_| fault(place, format!("{int} is not an int32")))?.into()
            }
            Shape::Int64 => signed(varint_of(content, place)?).into(),
            Shape::Double => match content {
                Content::Fixed64(bytes) => scalar::number(f64::from_le_bytes(bytes)),
                _ => return Err(fault(place, "is not of the wire type of a number")),
            },
            Shape::String => Value::String(text_of(content, place)?.to_owned()),
            Shape::Bytes => Value::String(scalar::base64(bytes_of(content, place)?)),
            Shape::Quantity => {
                let text = Parts::read(content, place)?.text(1, place)?.unwrap_or("0");
                let text = if text.is_empty() { "0" } else { text };
                Value::String(scalar::quantity(&text.into()).map_err(|problem| fault(place, problem))?)
            }
            Shape::IntOrString => {
                let parts = Parts::read(content, place)?;
                if parts.int(1) == 1 {
                    Value::String(parts.text(3, place)?.unwrap_or_default().to_owned())
                } else {
                    let int = parts.int(2);
                    i32::try_from(int).map_err(|_| fault(place, format!("{int} is not an int32")))?.into()
                }
            }
            Shape::Time => self.time(content, Precision::Seconds, place)?,
            Shape::MicroTime => self.time(content, Precision::Micros, place)?,
            Shape::Duration => Value::String(scalar::duration_of(Parts::read(content, place)?.int(1))),
            Shape::RawExtension | Shape::Json | Shape::FieldsV1 => {
                let raw = Parts::read(content, place)?.bytes(1).unwrap_or_default();
                self.raw(raw, place, depth)?
            }
            Shape::OrArray(inner) => match self.alternatives(node, *inner, content, place, depth)? {
                (_, list) if !list.is_empty() => Value::Array(list),
                (schema, _) => schema.unwrap_or_else(|| Value::Object(Map::new())),
            },
            Shape::OrStrings(inner) => {
                let parts = Parts::read(content, place)?;
                let strings: Vec<Value> =
                    parts.texts(2, place)?.into_iter().map(|text| Value::String(text.to_owned())).collect();
                match parts.bytes(1) {
                    Some(bytes) if strings.is_empty() => self.object(node.at(*inner), bytes, place, depth)?,
                    _ => Value::Array(strings),
                }
            }
            Shape::OrBool(inner) => {
                let parts = Parts::read(content, place)?;
                match parts.bytes(2) {
                    Some(bytes) => self.object(node.at(*inner), bytes, place, depth)?,
                    None => Value::Bool(parts.int(1) != 0),
                }
            }
            Shape::List(element, ListWire::Wrapped) => {
                let mut reader = Reader::new(bytes_of(content, place)?);
                let mut items = Vec::new();
                while let Some((number, content)) = reader.field().map_err(|what| fault(place, what))? {
                    if number == 1 {
                        items.push(self.value(node.at(*element), content, place, depth + 1)?);
                    }
                }
                Value::Array(items)
            }
            Shape::Object(_) => self.object(node, bytes_of(content, place)?, place, depth)?,
            Shape::List(_, ListWire::Repeated) | Shape::Map(_) => {
                return Err(fault(place, "a list or map cannot be a value of its own on the wire"));
            }
        })
    }

    fn object(&mut self, node: Node<'_>, bytes: &[u8], place: &Place<'_>, depth: usize) -> Result<Value, Fault> {
        let mut map = Map::new();
        self.message(node, bytes, &mut map, place, depth + 1)?;
        Ok(Value::Object(map))
    }

    /// The schema and the list of schemas of a value that may be either.
    fn alternatives(
        &mut self,
        node: Node<'_>,
        inner: TypeId,
        content: Content<'_>,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<(Option<Value>, Vec<Value>), Fault> {
        let mut schema = None;
        let mut list = Vec::new();
        let mut reader = Reader::new(bytes_of(content, place)?);
        while let Some((number, content)) = reader.field().map_err(|what| fault(place, what))? {
            match number {
                1 => schema = Some(self.object(node.at(inner), bytes_of(content, place)?, place, depth)?),
                2 => list.push(self.object(node.at(inner), bytes_of(content, place)?, place, depth)?),
                _ => {}
            }
        }
        Ok((schema, list))
    }

    /// An empty message is the zero time, which is null.
    fn time(&mut self, content: Content<'_>, precision: Precision, place: &Place<'_>) -> Result<Value, Fault> {
        if bytes_of(content, place)?.is_empty() {
            return Ok(Value::Null);
        }
        let parts = Parts::read(content, place)?;
        let text = scalar::time_of(parts.int(1), parts.int(2), precision).map_err(|problem| fault(place, problem))?;
        Ok(Value::String(text))
    }

    /// JSON inside a message; or, where a Go client nested a typed object, another envelope.
    fn raw(&mut self, raw: &[u8], place: &Place<'_>, depth: usize) -> Result<Value, Fault> {
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        if !is_protobuf(raw) {
            let parsed = parse(raw).map_err(|error| fault(place, error.to_string()))?;
            return Ok(parsed.value);
        }
        let envelope = envelope(raw).map_err(|error| fault(place, error.to_string()))?;
        let (group, version) = split_api_version(envelope.api_version);
        let Some(target) = self.registry.target(group, version, envelope.kind) else {
            return Err(fault(place, format!("holds an object of the unknown kind {:?}", envelope.kind)));
        };
        let mut map = Map::new();
        self.message(target.node, envelope.raw, &mut map, place, depth + 1)?;
        let mut object = Value::Object(map);
        complete(target, &mut object);
        Ok(object)
    }
}

/// The fields of a small message with a form of its own.
struct Parts<'a> {
    fields: Vec<(u32, Content<'a>)>,
}

impl<'a> Parts<'a> {
    fn read(content: Content<'a>, place: &Place<'_>) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes_of(content, place)?);
        let mut fields = Vec::new();
        while let Some(field) = reader.field().map_err(|what| fault(place, what))? {
            if fields.len() >= MAX_VALUES {
                return Err(Fault::TooMany);
            }
            fields.push(field);
        }
        Ok(Self { fields })
    }

    fn last(&self, number: u32) -> Option<Content<'a>> {
        self.fields.iter().rev().find(|(found, _)| *found == number).map(|(_, content)| *content)
    }

    fn int(&self, number: u32) -> i64 {
        match self.last(number) {
            Some(Content::Varint(value)) => signed(value),
            _ => 0,
        }
    }

    fn bytes(&self, number: u32) -> Option<&'a [u8]> {
        match self.last(number) {
            Some(Content::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    fn text(&self, number: u32, place: &Place<'_>) -> Result<Option<&'a str>, Fault> {
        self.last(number).map(|content| text_of(content, place)).transpose()
    }

    fn texts(&self, number: u32, place: &Place<'_>) -> Result<Vec<&'a str>, Fault> {
        self.fields.iter().filter(|(found, _)| *found == number).map(|(_, content)| text_of(*content, place)).collect()
    }
}

fn bytes_of<'a>(content: Content<'a>, place: &Place<'_>) -> Result<&'a [u8], Fault> {
    match content {
        Content::Bytes(bytes) => Ok(bytes),
        _ => Err(fault(place, "is not of the expected wire type")),
    }
}

fn text_of<'a>(content: Content<'a>, place: &Place<'_>) -> Result<&'a str, Fault> {
    std::str::from_utf8(bytes_of(content, place)?).map_err(|_| fault(place, "is not valid UTF-8"))
}

fn varint_of(content: Content<'_>, place: &Place<'_>) -> Result<u64, Fault> {
    match content {
        Content::Varint(value) => Ok(value),
        _ => Err(fault(place, "is not of the expected wire type")),
    }
}

/// Negative numbers travel as their two's complement.
fn signed(value: u64) -> i64 {
    i64::from_le_bytes(value.to_le_bytes())
}
