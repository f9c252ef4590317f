//! The types of the kinds table: what fields an object may have, how they look in JSON and on the protobuf wire, and how they merge.
//!
//! A [`Schema`] is an arena of [`Type`]s; a [`Node`] is a place in it that can be walked. Built-in kinds share one schema read from the
//! checked-in table; a custom resource brings its own, built at run time from its structural schema. Nothing here knows a particular kind.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

/// A name from the table (borrowed from the embedded text) or from a custom resource (owned).
pub type Text = Cow<'static, str>;

/// Index of a [`Type`] in its [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

/// An arena of types; ids of one schema mean nothing in another.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    by_name: HashMap<Text, TypeId>,
}

/// One type: a named definition of the OpenAPI document, or an anonymous list, map or scalar.
#[derive(Clone, Debug)]
pub struct Type {
    /// OpenAPI definition name such as `io.k8s.api.apps.v1.DeploymentSpec`; empty for anonymous types.
    pub name: Text,
    /// What values of this type look like.
    pub shape: Shape,
    /// Group, version and kind this definition carries when it is an object of its own (`apps/v1`, `Deployment`).
    pub gvks: Vec<Gvk>,
    /// Field managers own the whole object, never single fields of it (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
}

/// Group, version and kind of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// API group, empty for the core group.
    pub group: Text,
    /// API version, such as `v1`.
    pub version: Text,
    /// Kind, such as `Deployment`.
    pub kind: Text,
}

/// The form of a value, in JSON and on the wire.
#[derive(Clone, Debug)]
pub enum Shape {
    /// JSON boolean; varint on the wire.
    Bool,
    /// JSON integer in 32 bits; varint on the wire.
    Int32,
    /// JSON integer in 64 bits; varint on the wire.
    Int64,
    /// JSON number; fixed64 on the wire.
    Double,
    /// JSON string; UTF-8 bytes on the wire.
    String,
    /// Base64 string in JSON; bytes on the wire.
    Bytes,
    /// Resource quantity: JSON string or number; message with one string on the wire.
    Quantity,
    /// JSON integer or string; message of three fields on the wire.
    IntOrString,
    /// RFC 3339 time with seconds, or null; message of seconds and nanoseconds on the wire.
    Time,
    /// RFC 3339 time with microseconds, or null; the same message on the wire.
    MicroTime,
    /// Go duration text such as `1m30s`; message with nanoseconds on the wire.
    Duration,
    /// Any JSON object; message with the JSON text on the wire (`RawExtension`).
    RawExtension,
    /// Any JSON value; message with the JSON text on the wire (`JSON` of the apiextensions group).
    Json,
    /// Set of fields of a field manager: any JSON object; message with the JSON text on the wire.
    FieldsV1,
    /// `x` or a list of `x`; message of two alternatives on the wire.
    OrArray(TypeId),
    /// `x` or a boolean; message of two alternatives on the wire.
    OrBool(TypeId),
    /// `x` or a list of strings; message of two alternatives on the wire.
    OrStrings(TypeId),
    /// JSON array.
    List(TypeId, ListWire),
    /// JSON object with free keys and values of one type; repeated entries on the wire.
    Map(TypeId),
    /// JSON object with known fields; message on the wire.
    Object(Object),
}

/// How a list is carried on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListWire {
    /// The field is repeated.
    Repeated,
    /// A message whose field 1 is repeated (lists as map values).
    Wrapped,
}

/// The fields of a message.
#[derive(Clone, Debug, Default)]
pub struct Object {
    fields: Vec<Field>,
    wire: Vec<(Vec<u32>, u32, usize)>,
    unknown: UnknownFields,
}

/// What becomes of fields the type does not declare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// Dropped and reported.
    #[default]
    Prune,
    /// Kept as sent.
    Preserve,
}

/// One field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: Text,
    /// Field number on the wire; 0 where the type has no wire form.
    pub number: u32,
    /// Wire numbers of the embedded messages this field was flattened from, outermost first; empty for a direct field.
    pub embedded_in: Vec<u32>,
    /// Type of the value.
    pub ty: TypeId,
    /// A Go pointer: a zero on the wire was set on purpose and is kept.
    pub pointer: bool,
    /// Left out of JSON when zero.
    pub omitempty: bool,
    /// Must be present (OpenAPI `required`).
    pub required: bool,
    /// Values are sealed before they are stored.
    pub sensitive: bool,
    /// Values may not change after creation (declarative rule).
    pub immutable: bool,
    /// How field managers own lists.
    pub list_type: Option<ListType>,
    /// Field managers own the map or object as a whole.
    pub atomic: bool,
    /// How strategic merge patches treat the field.
    pub patch: PatchStrategy,
    /// OpenAPI format (`int32`, `date-time`, `byte`, ...), empty where none.
    pub format: Text,
    /// Declarative default; artefact defaults of the OpenAPI document are never here.
    pub default: Option<Value>,
    /// Allowed values, empty where unrestricted.
    pub enumeration: Vec<Text>,
    /// Declarative validation rules, as name and argument (`minimum`, `1`).
    pub rules: Vec<(Text, Text)>,
}

/// Topology of a list for field ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Owned as a whole.
    Atomic,
    /// Unordered scalars, each owned by itself.
    Set,
    /// Objects identified by the named keys.
    Map(Vec<Text>),
}

/// Directives of strategic merge patches for one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge instead of being replaced.
    pub merge: bool,
    /// The value is replaced as a whole, also where it is an object.
    pub replace: bool,
    /// Keys not named by the patch are dropped (unions).
    pub retain_keys: bool,
    /// Field that identifies list items; empty for lists of scalars.
    pub merge_key: Text,
}

impl Field {
    /// A plain optional field; everything else is set by the caller.
    pub fn new(name: impl Into<Text>, number: u32, ty: TypeId) -> Self {
        Self {
            name: name.into(),
            number,
            embedded_in: Vec::new(),
            ty,
            pointer: false,
            omitempty: false,
            required: false,
            sensitive: false,
            immutable: false,
            list_type: None,
            atomic: false,
            patch: PatchStrategy::default(),
            format: Text::default(),
            default: None,
            enumeration: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Object {
    /// Collects fields and indexes them by JSON name and by wire number.
    pub fn new(mut fields: Vec<Field>, unknown: UnknownFields) -> Self {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let mut wire: Vec<_> = fields
            .iter()
            .enumerate()
            .filter(|(_, f)| f.number != 0)
            .map(|(at, f)| (f.embedded_in.clone(), f.number, at))
            .collect();
        wire.sort_unstable();
        Self { fields, wire, unknown }
    }

    /// All fields, ordered by JSON name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field with this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok()?;
        self.fields.get(at)
    }

    /// The field with this wire number inside the embedded message at `path` (empty for the message itself).
    pub fn wire_field(&self, path: &[u32], number: u32) -> Option<&Field> {
        let at = self.wire.binary_search_by(|(p, n, _)| (p.as_slice(), *n).cmp(&(path, number))).ok()?;
        self.wire.get(at).and_then(|(_, _, field)| self.fields.get(*field))
    }

    /// True when the field numbered `number` at `path` is an embedded message whose fields were flattened into this object.
    pub fn is_embedded(&self, path: &[u32], number: u32) -> bool {
        self.fields.iter().any(|field| {
            field.embedded_in.strip_prefix(path).and_then(<[u32]>::first).is_some_and(|first| *first == number)
        })
    }

    /// What becomes of undeclared fields.
    pub fn unknown(&self) -> UnknownFields {
        self.unknown
    }
}

impl Schema {
    /// Adds a type and returns its id. A named type must be added once.
    pub fn add(&mut self, ty: Type) -> TypeId {
        let id = TypeId(u32::try_from(self.types.len()).expect("a schema holds fewer than 2^32 types"));
        if !ty.name.is_empty() {
            self.by_name.insert(ty.name.clone(), id);
        }
        self.types.push(ty);
        id
    }

    /// Adds a nameless type.
    pub fn add_shape(&mut self, shape: Shape) -> TypeId {
        self.add(Type { name: Text::default(), shape, gvks: Vec::new(), atomic: false })
    }

    /// Puts a finished type in the place of an announced one.
    pub(crate) fn replace(&mut self, id: TypeId, ty: Type) {
        if let Some(slot) = usize::try_from(id.0).ok().and_then(|at| self.types.get_mut(at)) {
            *slot = ty;
        }
    }

    /// The type behind an id of this schema.
    pub fn get(&self, id: TypeId) -> &Type {
        usize::try_from(id.0)
            .ok()
            .and_then(|at| self.types.get(at))
            .expect("a TypeId is only used with the schema that made it")
    }

    /// The id of a named definition.
    pub fn id(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// A place to walk from.
    pub fn node(&self, id: TypeId) -> Node<'_> {
        Node { schema: self, id }
    }

    /// A place to walk from, by definition name.
    pub fn named(&self, name: &str) -> Option<Node<'_>> {
        self.id(name).map(|id| self.node(id))
    }

    /// All types with their ids.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.types.iter().enumerate().map(|(at, ty)| (TypeId(u32::try_from(at).unwrap_or(u32::MAX)), ty))
    }
}

/// A type seen together with the schema it lives in.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    schema: &'a Schema,
    id: TypeId,
}

impl<'a> Node<'a> {
    /// The id inside the schema.
    pub fn id(self) -> TypeId {
        self.id
    }

    /// The schema this place belongs to.
    pub fn schema(self) -> &'a Schema {
        self.schema
    }

    /// The type at this place.
    pub fn ty(self) -> &'a Type {
        self.schema.get(self.id)
    }

    /// The shape of the type at this place.
    pub fn shape(self) -> &'a Shape {
        &self.ty().shape
    }

    /// Another place of the same schema.
    pub fn at(self, id: TypeId) -> Node<'a> {
        Node { schema: self.schema, id }
    }

    /// The declared fields, where this is an object.
    pub fn object(self) -> Option<&'a Object> {
        match self.shape() {
            Shape::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The declared field of this name, with its value's place.
    pub fn field(self, name: &str) -> Option<(&'a Field, Node<'a>)> {
        let field = self.object()?.field(name)?;
        Some((field, self.at(field.ty)))
    }

    /// The place of list items or map values.
    pub fn element(self) -> Option<Node<'a>> {
        match self.shape() {
            Shape::List(element, _) | Shape::Map(element) => Some(self.at(*element)),
            _ => None,
        }
    }

    /// The field at the end of a dotted path (`spec.template.spec`); lists and maps are stepped through without naming an index.
    pub fn path(self, path: &str) -> Option<(&'a Field, Node<'a>)> {
        let mut place = self;
        let mut found = None;
        for name in path.split('.') {
            while let Some(element) = place.element() {
                place = element;
            }
            let (field, next) = place.field(name)?;
            found = Some((field, next));
            place = next;
        }
        found
    }
}

impl std::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({}, {:?})", self.id.0, self.ty().name)
    }
}
