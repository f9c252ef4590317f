//! A protobuf encoder driven by the same table, writing as Go does: zeros of fields that are no pointers included.

use base64::Engine as _;
use serde_json::{Map, Value};

use crate::kind::Target;
use crate::schema::{Field, ListWire, Node, Object, Shape};

pub(super) fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let meta = [field_bytes(1, api_version.as_bytes()), field_bytes(2, kind.as_bytes())].concat();
    let unknown = [field_bytes(1, &meta), field_bytes(2, message), field_bytes(3, b""), field_bytes(4, b"")].concat();
    [b"k8s\0".as_slice(), &unknown].concat()
}

pub(super) fn field_bytes(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number) << 3 | 2);
    out.extend(varint(bytes.len() as u64));
    out.extend_from_slice(bytes);
    out
}

pub(super) fn field_varint(number: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

pub(super) fn encode(target: Target<'_>, object: &Value) -> Vec<u8> {
    let map = object.as_object().expect("an object");
    envelope(&target.api_version(), target.kind, &message(target.node, map))
}

fn message(node: Node<'_>, map: &Map<String, Value>) -> Vec<u8> {
    at_path(node, node.object().expect("a message"), &[], map)
}

fn at_path(node: Node<'_>, object: &Object, path: &[u32], map: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut embedded = Vec::new();
    for field in object.fields().iter().filter(|field| field.number != 0) {
        if field.embedded_in == path {
            out.extend(field_of(node, field, map.get(&*field.name)));
        } else if field.embedded_in.starts_with(path) {
            embedded.push(field.embedded_in[path.len()]);
        }
    }
    embedded.sort_unstable();
    embedded.dedup();
    for number in embedded {
        let inner = at_path(node, object, &[path, &[number]].concat(), map);
        out.extend(field_bytes(number, &inner));
    }
    out
}

fn field_of(node: Node<'_>, field: &Field, value: Option<&Value>) -> Vec<u8> {
    let inner = node.at(field.ty);
    match (inner.shape(), value) {
        (Shape::List(element, ListWire::Repeated), Some(Value::Array(items))) => {
            items.iter().flat_map(|item| single(inner.at(*element), field.number, item)).collect()
        }
        (Shape::Map(element), Some(Value::Object(map))) => map
            .iter()
            .flat_map(|(key, item)| {
                let entry = [field_bytes(1, key.as_bytes()), single(inner.at(*element), 2, item)].concat();
                field_bytes(field.number, &entry)
            })
            .collect(),
        (_, Some(value)) => single(inner, field.number, value),
        (_, None) if field.pointer => Vec::new(),
        (Shape::Bool | Shape::Int32 | Shape::Int64, None) => field_varint(field.number, 0),
        (Shape::String | Shape::Object(_) | Shape::Time | Shape::MicroTime, None) => field_bytes(field.number, b""),
        (Shape::IntOrString, None) => single(inner, field.number, &0.into()),
        (_, None) => Vec::new(),
    }
}

fn single(node: Node<'_>, number: u32, value: &Value) -> Vec<u8> {
    let text = || value.as_str().expect("a text").as_bytes();
    match node.shape() {
        Shape::Bool => field_varint(number, u64::from(value.as_bool().expect("a boolean"))),
        Shape::Int32 | Shape::Int64 => field_varint(number, int(value)),
        Shape::Double => {
            let mut out = varint(u64::from(number) << 3 | 1);
            out.extend(value.as_f64().expect("a number").to_le_bytes());
            out
        }
        Shape::String => field_bytes(number, text()),
        Shape::Bytes => {
            let raw = base64::engine::general_purpose::STANDARD.decode(text()).expect("base64");
            field_bytes(number, &raw)
        }
        Shape::Quantity => field_bytes(number, &field_bytes(1, text())),
        Shape::IntOrString => match value {
            Value::String(text) => {
                let inner = [field_varint(1, 1), field_varint(2, 0), field_bytes(3, text.as_bytes())].concat();
                field_bytes(number, &inner)
            }
            other => {
                field_bytes(number, &[field_varint(1, 0), field_varint(2, int(other)), field_bytes(3, b"")].concat())
            }
        },
        Shape::Time | Shape::MicroTime => {
            let time: jiff::Timestamp = value.as_str().expect("a time").parse().expect("a time");
            let nanos = u64::try_from(time.subsec_nanosecond()).expect("times after 1970");
            let seconds = u64::try_from(time.as_second()).expect("times after 1970");
            field_bytes(number, &[field_varint(1, seconds), field_varint(2, nanos)].concat())
        }
        Shape::Duration => field_bytes(number, &field_varint(1, 30_000_000_000)),
        Shape::RawExtension | Shape::Json | Shape::FieldsV1 => {
            field_bytes(number, &field_bytes(1, value.to_string().as_bytes()))
        }
        Shape::OrArray(inner) => match value {
            Value::Array(items) => {
                let list: Vec<u8> = items.iter().flat_map(|item| single(node.at(*inner), 2, item)).collect();
                field_bytes(number, &list)
            }
            other => field_bytes(number, &single(node.at(*inner), 1, other)),
        },
        Shape::OrBool(inner) => match value {
            Value::Bool(allows) => field_bytes(number, &field_varint(1, u64::from(*allows))),
            other => field_bytes(number, &[field_varint(1, 1), single(node.at(*inner), 2, other)].concat()),
        },
        Shape::OrStrings(inner) => match value {
            Value::Array(items) => {
                let list: Vec<u8> =
                    items.iter().flat_map(|item| field_bytes(2, item.as_str().expect("a text").as_bytes())).collect();
                field_bytes(number, &list)
            }
            other => field_bytes(number, &single(node.at(*inner), 1, other)),
        },
        Shape::List(element, _) => {
            let items = value.as_array().expect("a list");
            let list: Vec<u8> = items.iter().flat_map(|item| single(node.at(*element), 1, item)).collect();
            field_bytes(number, &list)
        }
        Shape::Object(_) => field_bytes(number, &message(node, value.as_object().expect("an object"))),
        Shape::Map(_) => panic!("maps are fields of messages"),
    }
}

fn int(value: &Value) -> u64 {
    u64::from_le_bytes(value.as_i64().expect("an integer").to_le_bytes())
}
