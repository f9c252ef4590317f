//! JSON text to a tree, with what `serde_json` alone does not give: duplicate keys reported by path, and limits on depth and size.
//!
//! No schema is known here.

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{DecodeError, MAX_BODY_BYTES, MAX_COMPLAINTS, MAX_DEPTH, MAX_VALUES, Place};

/// A JSON document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The document; of duplicate keys the last one counts.
    pub value: Value,
    /// Paths of keys that were there more than once.
    pub duplicates: Vec<String>,
}

/// Parses a whole body.
pub fn parse(body: &[u8]) -> Result<Parsed, DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge { bytes: body.len() });
    }
    let mut state = State { duplicates: Vec::new(), values: 0, exceeded: None };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Tree { state: &mut state, place: &Place::ROOT, depth: 0 };
    let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match (parsed, state.exceeded) {
        (_, Some(Exceeded::Depth)) => Err(DecodeError::TooDeep),
        (_, Some(Exceeded::Values)) => Err(DecodeError::TooMany),
        (Err(error), None) => Err(DecodeError::Syntax(error.to_string())),
        (Ok(value), None) => Ok(Parsed { value, duplicates: state.duplicates }),
    }
}

enum Exceeded {
    Depth,
    Values,
}

struct State {
    duplicates: Vec<String>,
    values: usize,
    exceeded: Option<Exceeded>,
}

struct Tree<'s, 'p> {
    state: &'s mut State,
    place: &'p Place<'p>,
    depth: usize,
}

impl Tree<'_, '_> {
    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth >= MAX_DEPTH {
            self.state.exceeded = Some(Exceeded::Depth);
            return Err(E::custom("too deep"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_, '_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.state.values += 1;
        if self.state.values > MAX_VALUES {
            self.state.exceeded = Some(Exceeded::Values);
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut list = Vec::new();
        loop {
            let place = self.place.index(list.len());
            let seed = Tree { state: &mut *self.state, place: &place, depth: self.depth + 1 };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let place = self.place.key(&key);
            let seed = Tree { state: &mut *self.state, place: &place, depth: self.depth + 1 };
            let value = entries.next_value_seed(seed)?;
            if map.contains_key(&key) && self.state.duplicates.len() < MAX_COMPLAINTS {
                let path = place.to_string();
                if !self.state.duplicates.contains(&path) {
                    self.state.duplicates.push(path);
                }
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
