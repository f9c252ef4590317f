//! Finds the programs under test: the `quiltd` that belongs to this build, and a `kubectl` new enough for what we promise.

use std::env::{current_exe, var_os};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Oldest minor version of Kubernetes 1 whose kubectl we promise to serve.
const KUBECTL_MINOR_MIN: u64 = 32;

/// The `quiltd` to test: `QUILTD_BIN`, else the one beside this test's own build, brought up to date first.
///
/// # Errors
/// When there is none and it cannot be built.
pub fn quiltd() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find_quiltd().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

fn find_quiltd() -> Result<PathBuf> {
    if let Some(given) = var_os("QUILTD_BIN").map(PathBuf::from) {
        ensure!(given.is_file(), "QUILTD_BIN names {}, which is no file", given.display());
        return Ok(given);
    }
    built(&["--package", "quiltd"], "quiltd")
}

/// The library that is put between a replica and its disk and clock: `QUILTD_FAULT_SHIM`, else the one of this build, brought up to date
/// first.
///
/// # Errors
/// When there is none and it cannot be built.
pub fn shim() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = match var_os("QUILTD_FAULT_SHIM").map(PathBuf::from) {
            Some(given) if given.is_file() => Ok(given),
            Some(given) => no_file(&given),
            None => built(&["--package", "cluster-tests-shim"], "libquilt_fault_shim.so"),
        };
        found.map_err(|error| format!("{error:#}"))
    });
    found.clone().map_err(anyhow::Error::msg)
}

fn no_file(given: &Path) -> Result<PathBuf> {
    bail!("QUILTD_FAULT_SHIM names {}, which is no file", given.display())
}

/// A program of this package's examples, brought up to date first.
///
/// # Errors
/// When there is none and it cannot be built.
pub fn example(name: &str) -> Result<PathBuf> {
    built(&["--package", "cluster-tests", "--example", name], &format!("examples/{name}"))
}

/// What cargo makes of `what`, beside this test's or program's own build.
fn built(what: &[&str], file: &str) -> Result<PathBuf> {
    // target/<profile>/<program>, or target/<profile>/deps/<test>-<hash>
    let program = current_exe().context("the program does not know its own path")?;
    let place = program.parent().context("a program is in a directory")?;
    let below = place.ends_with("deps") || place.ends_with("examples");
    let profile = if below { place.parent() } else { Some(place) }.context("it is not in a target directory")?;
    let made = profile.join(file);
    let name = profile.file_name().and_then(OsStr::to_str).unwrap_or("ci");
    // Cargo itself knows whether anything has changed; a build of what is up to date takes a moment.
    let cargo = var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--locked"])
        .args(what)
        .arg("--profile")
        .arg(if name == "debug" { "dev" } else { name })
        .arg("--target-dir")
        .arg(profile.parent().context("a profile's directory has a parent")?)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status();
    match status {
        Ok(status) if status.success() && made.is_file() => Ok(made),
        Ok(status) => bail!("{file} cannot be built for this ({status})"),
        Err(error) if made.is_file() => {
            // Without cargo, as on a host that only runs tests, what was built with them is used.
            let _no_cargo = error;
            Ok(made)
        }
        Err(error) => Err(error).with_context(|| format!("{file} is not built and cargo cannot be run")),
    }
}

/// A kubectl that runs and is new enough: `QUILTD_KUBECTL`, else the first on the `PATH`.
///
/// # Errors
/// When there is none, or an older one: the claim is not tested by skipping it.
pub fn kubectl() -> Result<PathBuf> {
    let path = var_os("QUILTD_KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
    let output = Command::new(&path)
        .args(["version", "--client", "--output", "json"])
        .output()
        .with_context(|| format!("{} cannot be run; install kubectl or set QUILTD_KUBECTL", path.display()))?;
    let told: Value = serde_json::from_slice(&output.stdout).context("kubectl does not tell its version")?;
    let version = told["clientVersion"]["gitVersion"].as_str().unwrap_or_default();
    let mut numbers = version.trim_start_matches('v').split('.');
    let minor = numbers.nth(1).and_then(|minor| minor.parse::<u64>().ok());
    ensure!(
        minor >= Some(KUBECTL_MINOR_MIN),
        "{} is {version}; these tests need 1.{KUBECTL_MINOR_MIN} or later",
        path.display()
    );
    Ok(path)
}
