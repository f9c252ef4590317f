//! A reader of Go type declarations, as far as Kubernetes' API packages go: structs with tags and markers, named types, constants, imports.
//!
//! It is no Go parser: it relies on gofmt's layout.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result};

/// All packages, by dotted path such as `io.k8s.api.apps.v1`.
#[derive(Debug, Default)]
pub(super) struct Packages {
    packages: BTreeMap<String, Package>,
}

/// The declarations of one package.
#[derive(Debug, Default)]
pub(super) struct Package {
    types: HashMap<String, Declaration>,
    constants: Vec<Constant>,
}

/// A type declaration.
#[derive(Debug)]
pub(super) struct Declaration {
    pub(super) markers: Vec<String>,
    pub(super) body: Body,
    imports: HashMap<String, String>,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Body {
    /// A struct with its fields.
    Struct(Vec<Field>),
    /// Another type expression.
    Other(String),
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// JSON name; empty for inlined structs.
    pub(super) json: String,
    pub(super) omitempty: bool,
    pub(super) inline: bool,
    /// Go type expression.
    pub(super) ty: String,
    /// Wire number, 0 without a tag.
    pub(super) number: u32,
    /// Name in the proto file, where the tag gives one.
    pub(super) proto_name: String,
    pub(super) markers: Vec<String>,
}

#[derive(Debug)]
struct Constant {
    name: String,
    ty: String,
    value: String,
}

/// A type expression with every name resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// Go basic type (`string`, `int32`, ...).
    Basic(String),
    /// A struct or special type, as package and name.
    Named(String, String),
    /// `[]T`.
    List(Box<Resolved>),
    /// `[]byte`.
    Bytes,
    /// `map[K]T` with string keys.
    Map(Box<Resolved>),
    /// A named list type that is a message of its own on the wire.
    WrappedList(Box<Resolved>),
}

impl Packages {
    /// Reads every package below a repository's folder whose name is the repository's.
    pub(super) fn read(&mut self, folder: &Path) -> Result<()> {
        let repository =
            folder.file_name().and_then(|name| name.to_str()).context("a folder without a name")?.to_owned();
        self.read_folder(folder, &format!("io.k8s.{repository}"))
    }

    fn read_folder(&mut self, folder: &Path, package: &str) -> Result<()> {
        for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if path.is_dir() {
                if !name.starts_with('.') && name != "testdata" && name != "vendor" {
                    self.read_folder(&path, &format!("{package}.{name}"))?;
                }
            } else if name.ends_with(".go") && !name.ends_with("_test.go") && !name.contains("generated") {
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                read_file(&text, self.packages.entry(package.to_owned()).or_default());
            }
        }
        Ok(())
    }

    pub(super) fn declaration(&self, package: &str, name: &str) -> Option<&Declaration> {
        self.packages.get(package)?.types.get(name)
    }

    /// Resolves a type expression seen in `package` by the declaration `from`.
    pub(super) fn resolve(&self, package: &str, from: &Declaration, expression: &str) -> Result<Resolved> {
        let expression = expression.trim_start_matches('*');
        if expression == "[]byte" {
            return Ok(Resolved::Bytes);
        }
        if let Some(inner) = expression.strip_prefix("[]") {
            return Ok(Resolved::List(Box::new(self.resolve(package, from, inner)?)));
        }
        if let Some(rest) = expression.strip_prefix("map[") {
            let (_, value) = rest.split_once(']').context("a map without a key")?;
            return Ok(Resolved::Map(Box::new(self.resolve(package, from, value)?)));
        }
        if matches!(expression, "string" | "bool" | "int32" | "int64" | "float64" | "int" | "byte") {
            return Ok(Resolved::Basic(expression.to_owned()));
        }
        let (home, name) = home_of(package, from, expression)?;
        let Some(declaration) = self.declaration(&home, &name) else { return Ok(Resolved::Named(home, name)) };
        match &declaration.body {
            Body::Struct(_) => Ok(Resolved::Named(home, name)),
            Body::Other(other) => match self.resolve(&home, declaration, other)? {
                Resolved::List(inner)
                    if declaration.markers.iter().any(|marker| marker == "protobuf.nullable=true") =>
                {
                    Ok(Resolved::WrappedList(inner))
                }
                resolved => Ok(resolved),
            },
        }
    }

    /// The values of an enum type, sorted, when the expression names one (or a list of one).
    pub(super) fn enumeration(&self, package: &str, from: &Declaration, expression: &str) -> Vec<String> {
        let expression = expression.trim_start_matches('*').trim_start_matches("[]");
        let Ok((home, name)) = home_of(package, from, expression) else { return Vec::new() };
        let Some(declaration) = self.declaration(&home, &name) else { return Vec::new() };
        if !declaration.markers.iter().any(|marker| marker == "enum" || marker.ends_with("k8s:enum")) {
            return Vec::new();
        }
        let Some(package) = self.packages.get(&home) else { return Vec::new() };
        let mut values: Vec<String> = package
            .constants
            .iter()
            .filter(|constant| constant.ty == name)
            .map(|constant| constant.value.clone())
            .collect();
        values.sort();
        values.dedup();
        values
    }

    /// The value of a string constant of a package.
    pub(super) fn constant(&self, package: &str, name: &str) -> Option<&str> {
        self.packages
            .get(package)?
            .constants
            .iter()
            .find(|constant| constant.name == name)
            .map(|constant| constant.value.as_str())
    }
}

fn home_of(package: &str, from: &Declaration, expression: &str) -> Result<(String, String)> {
    match expression.split_once('.') {
        Some((alias, name)) => {
            let home = from.imports.get(alias).with_context(|| format!("unknown import {alias} in {package}"))?;
            Ok((home.clone(), name.to_owned()))
        }
        None => Ok((package.to_owned(), expression.to_owned())),
    }
}

fn read_file(text: &str, package: &mut Package) {
    let mut lines = text.lines();
    let mut imports = HashMap::new();
    let mut comments: Vec<String> = Vec::new();
    // Markers of a block directly above the one before a declaration count too.
    let mut earlier: Vec<String> = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("//") {
            comments.push(comment.trim().to_owned());
        } else if line.is_empty() {
            earlier = std::mem::take(&mut comments);
        } else if line == "import (" {
            for line in lines.by_ref().take_while(|line| *line != ")") {
                read_import(line.trim(), &mut imports);
            }
        } else if let Some(single) = line.strip_prefix("import ") {
            read_import(single, &mut imports);
        } else if line == "const (" {
            for line in lines.by_ref().take_while(|line| *line != ")") {
                read_constant(line.trim(), package);
            }
        } else if let Some(single) = line.strip_prefix("const ") {
            read_constant(single, package);
        } else if let Some(declaration) = line.strip_prefix("type ") {
            let mut markers = markers(&earlier);
            markers.extend(self::markers(&comments));
            let (name, rest) = declaration.split_once(' ').unwrap_or((declaration, ""));
            let body = if rest == "struct {" {
                let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
                Body::Struct(read_fields(&inside))
            } else if rest == "struct{}" {
                Body::Struct(Vec::new())
            } else {
                let rest = rest.trim_start_matches("= ");
                Body::Other(rest.split(" //").next().unwrap_or(rest).trim().to_owned())
            };
            package.types.insert(name.to_owned(), Declaration { markers, body, imports: imports.clone() });
            comments.clear();
        } else {
            comments.clear();
            earlier.clear();
        }
    }
}

fn read_import(line: &str, imports: &mut HashMap<String, String>) {
    let mut words = line.split_whitespace();
    let (Some(first), second) = (words.next(), words.next()) else { return };
    let (alias, path) = match second {
        Some(path) if path.starts_with('"') => (Some(first), path),
        _ => (None, first),
    };
    let path = path.trim_matches('"');
    let Some(path) = path.strip_prefix("k8s.io/") else { return };
    let alias = alias.map_or_else(|| path.rsplit('/').next().unwrap_or(path).to_owned(), str::to_owned);
    imports.insert(alias, format!("io.k8s.{}", path.replace('/', ".")));
}

/// `Name Type = "value"` and `Name = "value"`.
fn read_constant(line: &str, package: &mut Package) {
    let Some((left, right)) = line.split_once('=') else { return };
    let mut names = left.split_whitespace();
    let (Some(name), ty) = (names.next(), names.next().unwrap_or_default()) else { return };
    let Some(value) = right.trim().strip_prefix('"').and_then(|rest| rest.split('"').next()) else { return };
    package.constants.push(Constant { name: name.to_owned(), ty: ty.to_owned(), value: value.to_owned() });
}

fn markers(comments: &[String]) -> Vec<String> {
    comments.iter().filter_map(|comment| comment.strip_prefix('+')).map(|marker| marker.trim().to_owned()).collect()
}

fn read_fields(lines: &[&str]) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut comments = Vec::new();
    for line in lines {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("//") {
            comments.push(comment.trim().to_owned());
        } else if line.is_empty() {
            comments.clear();
        } else if let Some(field) = read_field(line, markers(&std::mem::take(&mut comments))) {
            fields.push(field);
        }
    }
    fields
}

fn read_field(line: &str, markers: Vec<String>) -> Option<Field> {
    let (head, rest) = line.split_once('`')?;
    let (tags, _) = rest.split_once('`')?;
    let mut words = head.split_whitespace();
    let first = words.next()?;
    let ty = words.next().unwrap_or(first).to_owned();
    let json = tag(tags, "json")?;
    let mut parts = json.split(',');
    let name = parts.next().unwrap_or_default().to_owned();
    if name == "-" {
        return None;
    }
    let options: Vec<&str> = parts.collect();
    let mut number = 0;
    let mut proto_name = String::new();
    if let Some(proto) = tag(tags, "protobuf").filter(|proto| *proto != "-") {
        for part in proto.split(',') {
            if let Ok(found) = part.parse() {
                number = found;
            } else if let Some(found) = part.strip_prefix("name=") {
                found.clone_into(&mut proto_name);
            }
        }
    }
    let inline = options.contains(&"inline") || (name.is_empty() && head.split_whitespace().count() == 1);
    Some(Field {
        json: name,
        omitempty: options.contains(&"omitempty") || options.contains(&"omitzero"),
        inline,
        ty,
        number,
        proto_name,
        markers,
    })
}

fn tag<'a>(tags: &'a str, name: &str) -> Option<&'a str> {
    let start = tags.find(&format!("{name}:\""))? + name.len() + 2;
    tags.get(start..)?.split('"').next()
}
