//! A kubectl for the tests: one that is there, if it is new enough, else the one of a newer Debian. Nothing is
//! installed.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::debian;

/// Oldest minor version of Kubernetes 1 whose kubectl we promise to serve.
const MINOR_MIN: u64 = 32;

/// The variable that names a kubectl to the tests.
pub(crate) const VARIABLE: &str = "QUILTD_KUBECTL";

/// A kubectl that is new enough.
pub(crate) fn ensure() -> Result<PathBuf> {
    if let Some(given) = var_os(VARIABLE).map(PathBuf::from) {
        return match minor(&given) {
            Some(found) if found >= MINOR_MIN => Ok(given),
            Some(found) => bail!("{VARIABLE} names kubectl 1.{found}; the tests need 1.{MINOR_MIN} or later"),
            None => bail!("{VARIABLE} names {}, which is not a kubectl that runs", given.display()),
        };
    }
    let on_path = var_os("PATH").map(|path| std::env::split_paths(&path).map(|dir| dir.join("kubectl")).collect());
    let kept = debian::kept("kubectl")?.join("usr/bin/kubectl");
    let mut candidates: Vec<PathBuf> = on_path.unwrap_or_default();
    candidates.push(kept);
    if let Some(found) = candidates.into_iter().find(|path| minor(path).is_some_and(|found| found >= MINOR_MIN)) {
        return Ok(found);
    }
    let fetched = debian::fetch("kubectl").with_context(|| {
        format!("there is no kubectl 1.{MINOR_MIN} or later: install one, or set {VARIABLE} to its path")
    })?;
    let fetched = fetched.join("usr/bin/kubectl");
    match minor(&fetched) {
        Some(found) if found >= MINOR_MIN => Ok(fetched),
        found => bail!("the kubectl of Debian {} is not 1.{MINOR_MIN} or later: {found:?}", debian::RELEASE),
    }
}

/// The minor version of a kubectl; nothing when it does not run or is not of Kubernetes 1.
fn minor(kubectl: &Path) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Told {
        client_version: Version,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    if !kubectl.is_file() {
        return None;
    }
    let output = Command::new(kubectl).args(["version", "--client", "--output", "json"]).output().ok()?;
    let told: Told = serde_json::from_slice(&output.stdout).ok()?;
    let mut numbers = told.client_version.git_version.strip_prefix('v')?.split('.');
    (numbers.next()? == "1").then_some(())?;
    numbers.next()?.parse().ok()
}
