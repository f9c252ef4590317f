//! Seeds that once broke a rule: kept, and run first for ever.

use std::path::Path;

use anyhow::{Context, Result};

use crate::pace::Pace;

/// A seed worth keeping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The seed.
    pub seed: u64,
    /// Virtual seconds under faults, before the pace stretches them.
    pub seconds: u64,
    /// The pace it was found at; the seed's own when there is none.
    pub pace: Option<Pace>,
    /// What it showed.
    pub why: String,
}

/// Reads every seed kept in a directory: one file each, with lines `seed = N`, `seconds = N`, `why = text`
/// and, if it was not the seed's own, `pace = busy`.
///
/// # Errors
/// A file cannot be read, or says something else.
pub fn kept(dir: &Path) -> Result<Vec<Kept>> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seed"))
        .collect();
    names.sort();
    names.iter().map(|path| read(path).with_context(|| format!("in {}", path.display()))).collect()
}

fn read(path: &Path) -> Result<Kept> {
    let text = std::fs::read_to_string(path)?;
    let value = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let found = lines.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name);
        found.map(|(_, value)| value.to_owned()).with_context(|| format!("there is no {name}"))
    };
    let pace = value("pace").ok().map(|pace| pace.parse().map_err(anyhow::Error::msg)).transpose()?;
    Ok(Kept { seed: value("seed")?.parse()?, seconds: value("seconds")?.parse()?, pace, why: value("why")? })
}
