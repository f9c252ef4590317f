//! The text form of the kinds table.
//!
//! Lines, sorted by the generator: `type NAME [atomic] [preserve] [gvk=..]` followed by indented fields, `type NAME = SHAPE` for types with
//! a form of their own, `kind GROUP/VERSION KIND key=value..` followed by indented `sub` lines. Strings stay borrowed from the text.

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use super::Registry;
use crate::kind::{Generation, Kind, Origin, Scope, Subresource, Verb, split_api_version};
use crate::schema::{
    Field, Gvk, ListType, ListWire, Object, PatchStrategy, Schema, Shape, Text, Type, TypeId, UnknownFields,
};

/// A line of a kinds table that cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("kinds table {table}, line {line}: {problem}")]
pub struct TableError {
    /// Which of the tables, counted from 0.
    pub table: usize,
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

#[derive(Default)]
struct Builder {
    schema: Schema,
    interned: HashMap<&'static str, TypeId>,
    kinds: Vec<(Kind, &'static str)>,
    open: Option<OpenType>,
}

struct OpenType {
    id: TypeId,
    ty: Type,
    fields: Vec<Field>,
    unknown: UnknownFields,
}

pub(super) fn parse(tables: &[&'static str]) -> Result<Registry, TableError> {
    let mut builder = Builder::default();
    for (table, text) in tables.iter().enumerate() {
        for (line, content) in text.lines().enumerate() {
            builder.announce(content).map_err(|problem| TableError { table, line: line + 1, problem })?;
        }
    }
    for (table, text) in tables.iter().enumerate() {
        for (line, content) in text.lines().enumerate() {
            builder.read(content).map_err(|problem| TableError { table, line: line + 1, problem })?;
        }
        builder.close();
    }
    builder.finish().map_err(|problem| TableError { table: tables.len(), line: 0, problem })
}

impl Builder {
    /// First pass: every named type gets its id, so that order does not matter.
    fn announce(&mut self, line: &'static str) -> Result<(), String> {
        let Some(rest) = line.strip_prefix("type ") else { return Ok(()) };
        let name = rest.split(' ').next().unwrap_or_default();
        if self.schema.id(name).is_some() {
            return Err(format!("type {name} is declared twice"));
        }
        let id = self.schema.add(placeholder(name));
        self.interned.insert(name, id);
        Ok(())
    }

    fn read(&mut self, line: &'static str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("type ") {
            self.close();
            return self.read_type(rest);
        }
        if let Some(rest) = line.strip_prefix("kind ") {
            self.close();
            return self.read_kind(rest);
        }
        if let Some(rest) = line.strip_prefix("\tsub ") {
            return self.read_subresource(rest);
        }
        if let Some(rest) = line.strip_prefix('\t') {
            return self.read_field(rest);
        }
        Err(format!("unknown line {line:?}"))
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let shape = Shape::Object(Object::new(open.fields, open.unknown));
            self.schema.replace(open.id, Type { shape, ..open.ty });
        }
    }

    fn read_type(&mut self, rest: &'static str) -> Result<(), String> {
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let id = self.schema.id(name).ok_or("type was not announced")?;
        let mut ty = placeholder(name);
        if let Some(shape) = rest.strip_prefix("= ") {
            ty.shape = self.special(shape)?;
            self.schema.replace(id, ty);
            return Ok(());
        }
        let mut unknown = UnknownFields::Prune;
        for word in rest.split(' ').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                None if word == "atomic" => ty.atomic = true,
                None if word == "preserve" => unknown = UnknownFields::Preserve,
                Some(("gvk", gvk)) => ty.gvks.push(parse_gvk(gvk)?),
                _ => return Err(format!("unknown word {word:?} on a type")),
            }
        }
        self.open = Some(OpenType { id, ty, fields: Vec::new(), unknown });
        Ok(())
    }

    fn special(&mut self, shape: &'static str) -> Result<Shape, String> {
        if let Some((form, inner)) = shape.split_once(' ') {
            let inner = self.type_of(inner)?;
            return match form {
                "orArray" => Ok(Shape::OrArray(inner)),
                "orBool" => Ok(Shape::OrBool(inner)),
                "orStrings" => Ok(Shape::OrStrings(inner)),
                _ => Err(format!("unknown shape {form:?}")),
            };
        }
        primitive(shape).ok_or_else(|| format!("unknown shape {shape:?}"))
    }

    /// The type of an expression: a primitive, a declared name, or `[]`, `<>` (list in a message), `{}` (map) before another expression.
    fn type_of(&mut self, expression: &'static str) -> Result<TypeId, String> {
        if let Some(id) = self.interned.get(expression) {
            return Ok(*id);
        }
        let shape = if let Some(inner) = expression.strip_prefix("[]") {
            Shape::List(self.type_of(inner)?, ListWire::Repeated)
        } else if let Some(inner) = expression.strip_prefix("<>") {
            Shape::List(self.type_of(inner)?, ListWire::Wrapped)
        } else if let Some(inner) = expression.strip_prefix("{}") {
            Shape::Map(self.type_of(inner)?)
        } else {
            primitive(expression).ok_or_else(|| format!("unknown type {expression:?}"))?
        };
        let id = self.schema.add_shape(shape);
        self.interned.insert(expression, id);
        Ok(id)
    }

    fn read_field(&mut self, rest: &'static str) -> Result<(), String> {
        let mut rest = rest;
        let mut word = || {
            let (first, tail) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = tail;
            first
        };
        let name = word();
        let number = word().parse().map_err(|_| format!("field {name} has no wire number"))?;
        let expression = word();
        let ty = self.type_of(expression)?;
        let mut field = Field::new(name, number, ty);
        field.format = Text::Borrowed(implied_format(&self.schema.get(ty).shape));
        while !rest.is_empty() {
            if let Some(json) = rest.strip_prefix("default=") {
                field.default =
                    Some(serde_json::from_str(json).map_err(|error| format!("default of {name}: {error}"))?);
                break;
            }
            let (word, tail) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = tail;
            flag(&mut field, word)?;
        }
        let open = self.open.as_mut().ok_or("a field outside a type")?;
        if open.fields.iter().any(|other| other.name == name) {
            return Err(format!("field {name} is declared twice"));
        }
        open.fields.push(field);
        Ok(())
    }

    fn read_kind(&mut self, rest: &'static str) -> Result<(), String> {
        let mut words = rest.split(' ');
        let (group, version) = split_api_version(words.next().unwrap_or_default());
        let name = words.next().ok_or("a kind needs a name")?;
        let mut kind = Kind {
            group: group.into(),
            version: version.into(),
            kind: name.into(),
            list_kind: Text::default(),
            plural: Text::default(),
            singular: Text::default(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
            verbs: Vec::new(),
            subresources: Vec::new(),
            storage_group: group.into(),
            storage_version: version.into(),
            selectable_fields: Vec::new(),
            generation: Generation::None,
            origin: Origin::BuiltIn,
            types: Arc::default(),
            schema: TypeId(0),
        };
        let mut type_name = "";
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("unknown word {word:?} on a kind"))?;
            match key {
                "type" => type_name = value,
                "list" => kind.list_kind = value.into(),
                "plural" => kind.plural = value.into(),
                "singular" => kind.singular = value.into(),
                "short" => kind.short_names = texts(value, ','),
                "categories" => kind.categories = texts(value, ','),
                "select" => kind.selectable_fields = texts(value, ','),
                "verbs" => kind.verbs = verbs(value)?,
                "store" => {
                    let (group, version) = split_api_version(value);
                    kind.storage_group = group.into();
                    kind.storage_version = version.into();
                }
                "scope" => {
                    kind.scope = match value {
                        "cluster" => Scope::Cluster,
                        "namespaced" => Scope::Namespaced,
                        _ => return Err(format!("unknown scope {value:?}")),
                    }
                }
                "generation" => {
                    kind.generation = match value {
                        "spec" => Generation::Spec,
                        "content" => Generation::Content,
                        _ => return Err(format!("unknown generation rule {value:?}")),
                    }
                }
                _ => return Err(format!("unknown key {key:?} on a kind")),
            }
        }
        if kind.plural.is_empty() || kind.singular.is_empty() {
            return Err(format!("{name} needs plural and singular"));
        }
        kind.schema = self.schema.id(type_name).ok_or_else(|| format!("{name} has the unknown type {type_name:?}"))?;
        self.kinds.push((kind, type_name));
        Ok(())
    }

    fn read_subresource(&mut self, rest: &'static str) -> Result<(), String> {
        let (kind, _) = self.kinds.last_mut().ok_or("a subresource outside a kind")?;
        let mut words = rest.split(' ');
        let name = words.next().unwrap_or_default();
        let gvk = parse_gvk(words.next().unwrap_or_default())?;
        let listed = words.next().and_then(|word| word.strip_prefix("verbs=")).ok_or("a subresource needs verbs")?;
        kind.subresources.push(Subresource { name: name.into(), kind: gvk, verbs: verbs(listed)? });
        Ok(())
    }

    fn finish(self) -> Result<Registry, String> {
        let types = Arc::new(self.schema);
        let mut kinds: Vec<Kind> =
            self.kinds.into_iter().map(|(kind, _)| Kind { types: Arc::clone(&types), ..kind }).collect();
        kinds.sort_by(|a, b| (&a.group, &a.version, &a.plural).cmp(&(&b.group, &b.version, &b.plural)));
        let mut by_resource = HashMap::new();
        let mut by_kind = HashMap::new();
        let mut by_gvk = HashMap::new();
        for (at, kind) in kinds.iter().enumerate() {
            let (group, version) = (borrowed(&kind.group), borrowed(&kind.version));
            if by_resource.insert((group, version, borrowed(&kind.plural)), at).is_some() {
                return Err(format!("{} is declared twice", kind.plural));
            }
            by_kind.insert((group, version, borrowed(&kind.kind)), at);
            let names = (group, version, borrowed(&kind.kind));
            by_gvk.insert(names, (names, kind.schema));
        }
        for (id, ty) in types.types() {
            for gvk in &ty.gvks {
                let names = (borrowed(&gvk.group), borrowed(&gvk.version), borrowed(&gvk.kind));
                by_gvk.insert(names, (names, id));
            }
        }
        Ok(Registry { types, kinds, by_resource, by_kind, by_gvk })
    }
}

fn placeholder(name: &'static str) -> Type {
    Type {
        name: name.into(),
        shape: Shape::Object(Object::new(Vec::new(), UnknownFields::Prune)),
        gvks: Vec::new(),
        atomic: false,
    }
}

/// Every text of a parsed table is borrowed from the table.
fn borrowed(text: &Text) -> &'static str {
    match text {
        Text::Borrowed(text) => text,
        Text::Owned(_) => "",
    }
}

fn texts(list: &'static str, separator: char) -> Vec<Text> {
    list.split(separator).map(Text::Borrowed).collect()
}

fn verbs(list: &str) -> Result<Vec<Verb>, String> {
    let mut verbs = list
        .split(',')
        .map(|verb| Verb::parse(verb).ok_or_else(|| format!("unknown verb {verb:?}")))
        .collect::<Result<Vec<_>, _>>()?;
    verbs.sort_unstable();
    Ok(verbs)
}

/// `v1/Pod` or `apps/v1/Deployment`.
fn parse_gvk(text: &'static str) -> Result<Gvk, String> {
    let (api_version, kind) = text.rsplit_once('/').ok_or_else(|| format!("{text:?} is no group/version/kind"))?;
    let (group, version) = split_api_version(api_version);
    Ok(Gvk { group: group.into(), version: version.into(), kind: kind.into() })
}

fn primitive(name: &str) -> Option<Shape> {
    Some(match name {
        "bool" => Shape::Bool,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "double" => Shape::Double,
        "string" => Shape::String,
        "bytes" => Shape::Bytes,
        "quantity" => Shape::Quantity,
        "intOrString" => Shape::IntOrString,
        "time" => Shape::Time,
        "microTime" => Shape::MicroTime,
        "duration" => Shape::Duration,
        "rawExtension" => Shape::RawExtension,
        "json" => Shape::Json,
        "fieldsV1" => Shape::FieldsV1,
        _ => return None,
    })
}

fn implied_format(shape: &Shape) -> &'static str {
    match shape {
        Shape::Int32 => "int32",
        Shape::Int64 => "int64",
        Shape::Double => "double",
        Shape::Bytes => "byte",
        Shape::Time | Shape::MicroTime => "date-time",
        Shape::IntOrString => "int-or-string",
        _ => "",
    }
}

fn flag(field: &mut Field, word: &'static str) -> Result<(), String> {
    let unknown = || format!("unknown word {word:?} on field {}", field.name);
    let Some((key, value)) = word.split_once('=') else {
        match word {
            "ptr" => field.pointer = true,
            "omitempty" => field.omitempty = true,
            "required" => field.required = true,
            "sensitive" => field.sensitive = true,
            "immutable" => field.immutable = true,
            "atomic" => field.atomic = true,
            _ => return Err(unknown()),
        }
        return Ok(());
    };
    match key {
        "in" => {
            let path: Result<Vec<u32>, _> = value.split('.').map(str::parse).collect();
            field.embedded_in = path.map_err(|_| unknown())?;
        }
        "list" => {
            field.list_type = Some(match value.split_once(':') {
                None if value == "atomic" => ListType::Atomic,
                None if value == "set" => ListType::Set,
                Some(("map", keys)) => ListType::Map(texts(keys, ',')),
                _ => return Err(unknown()),
            });
        }
        "patch" => {
            let (strategies, merge_key) = value.split_once(':').unwrap_or((value, ""));
            let mut strategy = PatchStrategy { merge_key: merge_key.into(), ..PatchStrategy::default() };
            for name in strategies.split(',') {
                match name {
                    "merge" => strategy.merge = true,
                    "replace" => strategy.replace = true,
                    "retainKeys" => strategy.retain_keys = true,
                    _ => return Err(unknown()),
                }
            }
            field.patch = strategy;
        }
        "format" => field.format = value.into(),
        "enum" => {
            field.enumeration = value
                .split('|')
                .map(|value| if value.contains("%20") { value.replace("%20", " ").into() } else { value.into() })
                .collect();
        }
        _ => match key.strip_prefix("rule:") {
            Some(rule) => field.rules.push((rule.into(), value.into())),
            None => return Err(unknown()),
        },
    }
    Ok(())
}
