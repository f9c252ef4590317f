//! The bug museum of what the simulation does not hold: mistakes of the judge itself, and bugs of the crates that compose transactions.
//! Whoever lets one of them pass proves nothing (`quality.md`, section 5).
//!
//! The judge's are tried here, in histories that are right by construction: a judge that condemns one is wrong. The product's are behind
//! switches that exist in the crates' own unit tests only, so that no binary holds one; their tests are run, and say what convicted each.

use std::fmt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::oracle::{self, Bias, model};

/// Histories that a mistake of the judge is tried on, one for each seed.
const SEEDS: u64 = 40;
/// Requests of each.
const REQUESTS: u64 = 150;

/// Crates whose unit tests hold exhibits, in modules named `museum`.
pub const CRATES: &[&str] = &["quilt-api", "quilt-controllers", "quilt-scheduler"];

/// An exhibit, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Its name.
    pub name: &'static str,
    /// The seed, and what convicted it.
    pub convicted: Option<(u64, String)>,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, convicted } = self;
        match convicted {
            Some((seed, by)) => write!(f, "convicted  {:<14} {name:<50} by seed {seed}: {by}", "checker"),
            None => write!(f, "SURVIVED   {:<14} {name:<50} seeds 0..{SEEDS}", "checker"),
        }
    }
}

/// Tries every mistake of the judge.
#[must_use]
pub fn checker() -> Vec<Trial> {
    vec![
        wrongly_condemns("an unknown write assumed absent", Bias::UnknownIsAbsent),
        wrongly_condemns("a watch used to end a request that has no answer", Bias::WatchEndsRequests),
    ]
}

/// A judge with this mistake condemns a history that is right, and that the judge without it acquits.
fn wrongly_condemns(name: &'static str, bias: Bias) -> Trial {
    let convicted = (0..SEEDS).find_map(|seed| {
        let history = model::run(seed, REQUESTS).history;
        let verdict = oracle::judged_by(bias, &history);
        let check = verdict.found.keys().next().filter(|_| oracle::check(&history).passed())?;
        Some((seed, format!("condemns a right history by {check}")))
    });
    Trial { name, convicted }
}

/// Runs the product's exhibits by cargo and tells each line they say. Whether all were convicted.
///
/// # Errors
/// When cargo cannot be run: then nothing is known.
pub fn product(mut tell: impl FnMut(&str)) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--quiet", "--locked", "--profile", "ci", "--lib"]);
    for name in CRATES {
        command.args(["--package", name]);
    }
    command.args(["museum::", "--", "--nocapture", "--test-threads=1"]);
    command.current_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).stderr(Stdio::inherit());
    let output = command.output().context("cargo cannot be run, and the product's exhibits are tests")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // The test runner's dots may stand before what a test says.
    let lines = said.lines().filter_map(|line| {
        let begin = line.find("convicted  ").or_else(|| line.find("SURVIVED   "))?;
        line.get(begin..)
    });
    let mut count = 0;
    for line in lines {
        tell(line);
        count += 1;
    }
    Ok(output.status.success() && count >= CRATES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mistake of the judge is found out by a history that is right.
    #[test]
    fn every_mistake_of_the_judge_is_convicted() {
        for trial in checker() {
            assert!(trial.convicted.is_some(), "{trial}");
        }
    }
}
