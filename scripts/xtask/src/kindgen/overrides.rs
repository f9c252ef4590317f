//! The overrides file: what no upstream source says about kinds, one statement a line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Statements by subject. Resources are written `group/version/plural` (`v1/pods` for the core group).
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// Attributes of resources: `short`, `categories`, `select`, `store`, `generation`, `singular`.
    resources: BTreeMap<(String, String), String>,
    /// Kinds of connect subresources.
    subresource_kinds: BTreeMap<String, String>,
    /// Fields whose values are sealed.
    sensitive: BTreeSet<String>,
    /// Fields that may be missing in one of the sources.
    exceptions: BTreeSet<String>,
}

impl Overrides {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut all = Self::default();
        for (line, content) in text.lines().enumerate() {
            let words: Vec<&str> = content.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["sensitive", field] => {
                    all.sensitive.insert((*field).to_owned());
                }
                ["except", field, ..] => {
                    all.exceptions.insert((*field).to_owned());
                }
                ["subresource", name, kind] => {
                    all.subresource_kinds.insert((*name).to_owned(), (*kind).to_owned());
                }
                [key @ ("short" | "categories" | "select" | "store" | "generation" | "singular"), resource, value] => {
                    all.resources.insert(((*resource).to_owned(), (*key).to_owned()), (*value).to_owned());
                }
                _ => bail!("{}:{}: unknown statement {content:?}", path.display(), line + 1),
            }
        }
        Ok(all)
    }

    pub(super) fn resource(&self, resource: &str, key: &str) -> Option<&str> {
        self.resources.get(&(resource.to_owned(), key.to_owned())).map(String::as_str)
    }

    pub(super) fn subresource_kind(&self, name: &str) -> Option<&str> {
        self.subresource_kinds.get(name).map(String::as_str)
    }

    pub(super) fn is_sensitive(&self, field: &str) -> bool {
        self.sensitive.contains(field)
    }

    pub(super) fn is_exception(&self, field: &str) -> bool {
        self.exceptions.contains(field)
    }

    /// Resources named here; each must exist in the document.
    pub(super) fn named_resources(&self) -> BTreeSet<&str> {
        self.resources.keys().map(|(resource, _)| resource.as_str()).collect()
    }
}
