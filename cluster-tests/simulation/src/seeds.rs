//! Seeds that once broke a rule: kept, and run first for ever.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::campaign::Verdict;
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

/// Writes down a seed that broke a rule, so that it is run first from now on: where, or nothing when it is kept already.
///
/// # Errors
/// It cannot be written, or what is kept cannot be read.
pub fn keep(dir: &Path, verdict: &Verdict, seconds: u64) -> Result<Option<PathBuf>> {
    let Some(violation) = &verdict.violation else { return Ok(None) };
    let Verdict { seed, pace, .. } = verdict;
    let is_it = |kept: &Kept| kept.seed == *seed && kept.seconds == seconds && kept.pace.is_none_or(|of| of == *pace);
    if kept(dir)?.iter().any(is_it) {
        return Ok(None);
    }
    let path = dir.join(format!("{seed:05}-{pace}-{seconds}.seed"));
    // One line each, whatever a panic says.
    let what: Vec<&str> = violation.what.split_whitespace().collect();
    let why = format!("{}: {}", violation.invariant, what.join(" "));
    std::fs::write(&path, format!("seed = {seed}\nseconds = {seconds}\npace = {pace}\nwhy = {why}\n"))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(Some(path))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::Violation;
    use crate::tally::Tally;

    /// A seed that broke a rule is written down once, reads back as it was found, and one that broke none is not kept.
    #[test]
    fn a_failing_seed_is_kept_once() {
        let dir = std::env::temp_dir().join(format!("quilt-seeds-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let what = "replica 2 = 7\n  left: 3".to_owned();
        let violation = Some(Violation { invariant: "log matching", at_ms: 5, what });
        let simulated = Duration::from_secs(60);
        let verdict = Verdict {
            seed: 77,
            pace: Pace::Quiet,
            violation,
            trace_hash: 1,
            lines: 2,
            simulated,
            tally: Tally::default(),
        };
        let path = keep(&dir, &verdict, 60).expect("written").expect("it is new");
        assert_eq!(keep(&dir, &verdict, 60).expect("read"), None);
        assert_eq!(keep(&dir, &Verdict { seed: 78, violation: None, ..verdict }, 60).expect("nothing to do"), None);
        let why = "log matching: replica 2 = 7 left: 3".to_owned();
        assert_eq!(kept(&dir).expect("read"), [Kept { seed: 77, seconds: 60, pace: Some(Pace::Quiet), why }]);
        assert!(path.starts_with(&dir));
        std::fs::remove_dir_all(dir).expect("removed");
    }
}
