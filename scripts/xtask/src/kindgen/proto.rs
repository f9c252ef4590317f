//! The proto files, compiled: which wire numbers, names and wire types the messages have. Only used to check what the Go tags say.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};

/// All messages, by dotted proto name such as `api.apps.v1.Deployment`.
#[derive(Debug, Default)]
pub(super) struct Messages {
    messages: HashMap<String, BTreeMap<u32, ProtoField>>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct ProtoField {
    pub(super) name: String,
    pub(super) repeated: bool,
    /// Scalar name as in proto files, `message` for messages and maps.
    pub(super) ty: &'static str,
}

impl Messages {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect(folder, &mut files)?;
        let set = protox::compile(&files, [folder]).context("the proto files do not compile")?;
        let mut all = Self::default();
        for file in &set.file {
            for message in &file.message_type {
                let fields = message
                    .field
                    .iter()
                    .map(|field| {
                        let number = u32::try_from(field.number()).context("a negative field number")?;
                        let ty = match field.r#type() {
                            Type::Bool => "bool",
                            Type::Int32 => "int32",
                            Type::Int64 => "int64",
                            Type::Double => "double",
                            Type::String => "string",
                            Type::Bytes => "bytes",
                            Type::Message => "message",
                            _ => "other",
                        };
                        Ok((
                            number,
                            ProtoField {
                                name: field.name().to_owned(),
                                repeated: field.label() == Label::Repeated,
                                ty,
                            },
                        ))
                    })
                    .collect::<Result<_>>()?;
                all.messages.insert(format!("{}.{}", file.package(), message.name()), fields);
            }
        }
        Ok(all)
    }

    /// The fields of the message behind an OpenAPI definition.
    pub(super) fn of_definition(&self, definition: &str) -> Option<&BTreeMap<u32, ProtoField>> {
        self.messages.get(&definition.strip_prefix("io.k8s.")?.replace('-', "_"))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}
