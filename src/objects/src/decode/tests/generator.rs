//! Random objects that follow the table, from one seed.

use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::registry::registry;
use crate::schema::{Node, Shape};

/// A step of a linear congruential generator: enough to choose by, and the same everywhere.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("small")]
    }
}

/// An object of some built-in kind that has a wire form.
pub(super) fn object(seed: u64) -> (&'static Kind, Value) {
    let mut choices = Choices(seed);
    let kinds: Vec<&Kind> = registry().kinds().iter().filter(|kind| kind.group != "quilt.sh").collect();
    let kind = choices.one_of(&kinds);
    let mut object = structure(kind.node(), &mut choices, 0);
    for name in ["apiVersion", "kind"] {
        object.remove(name);
    }
    (kind, Value::Object(object))
}

fn structure(node: Node<'_>, choices: &mut Choices, depth: u64) -> Map<String, Value> {
    let mut map = Map::new();
    for field in node.object().expect("a message").fields().iter().filter(|field| field.number != 0) {
        let inner = node.at(field.ty);
        // Go always writes these, so a JSON body that lacks them is another object.
        let always = !field.pointer && !field.omitempty;
        if always || choices.below(4 + depth * 4) == 0 {
            let mut made = value(inner, choices, depth);
            // An empty list has no form on the wire: that case has its own test.
            while always && (made == json!([]) || made == json!({}) && matches!(inner.shape(), Shape::Map(_))) {
                made = value(inner, choices, depth);
            }
            map.insert(field.name.clone().into_owned(), made);
        }
    }
    map
}

fn value(node: Node<'_>, choices: &mut Choices, depth: u64) -> Value {
    match node.shape() {
        Shape::Bool => Value::Bool(choices.below(2) == 1),
        Shape::Int32 => choices.one_of(&[0, 1, -1, i32::MAX, i32::MIN]).into(),
        Shape::Int64 => choices.one_of(&[0, 1, -1, i64::MAX, i64::MIN]).into(),
        Shape::Double => choices.one_of(&[0.0, 1.5, -2.0, 1e300]).into(),
        Shape::String => choices.one_of(&["", "a", "Grüße", "default"]).into(),
        Shape::Bytes => choices.one_of(&["", "/wA=", "YWJj"]).into(),
        Shape::Quantity => choices.one_of(&["0", "500m", "1Gi", "1000", "-2"]).into(),
        Shape::IntOrString => choices
            .one_of(&[json!(0).to_string(), json!(80).to_string(), "http".to_owned()].each_ref())
            .parse::<i32>()
            .map_or_else(|_| "http".into(), Value::from),
        Shape::Time => choices.one_of(&["1970-01-01T00:00:00Z", "2026-01-02T03:04:05Z"]).into(),
        Shape::MicroTime => choices.one_of(&["1970-01-01T00:00:00.000001Z", "2026-01-02T03:04:05.000000Z"]).into(),
        Shape::Duration => "30s".into(),
        Shape::RawExtension | Shape::FieldsV1 => json!({"f:a": {"b": [1, null]}}),
        Shape::Json => choices.one_of(&[&json!(1), &json!("x"), &json!({"a": []})]).clone(),
        Shape::OrArray(inner) | Shape::OrBool(inner) | Shape::OrStrings(inner) if choices.below(2) == 0 => {
            Value::Object(structure(node.at(*inner), choices, depth + 3))
        }
        Shape::OrArray(inner) => Value::Array(vec![Value::Object(structure(node.at(*inner), choices, depth + 3))]),
        Shape::OrBool(_) => Value::Bool(choices.below(2) == 1),
        Shape::OrStrings(_) => json!(["a", "b"]),
        Shape::List(element, _) => {
            (0..choices.below(3)).map(|_| value(node.at(*element), choices, depth + 1)).collect()
        }
        Shape::Map(element) => {
            let keys = ["a", "b.c/d"];
            let mut map = Map::new();
            for _ in 0..choices.below(3) {
                map.insert(choices.one_of(&keys).to_owned(), value(node.at(*element), choices, depth + 1));
            }
            Value::Object(map)
        }
        Shape::Object(_) => Value::Object(structure(node, choices, depth + 1)),
    }
}
