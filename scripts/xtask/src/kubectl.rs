//! A kubectl for the tests: one that is there, if it is new enough, else the one of a newer Debian, unpacked into the
//! cache. Nothing is installed.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cache;

/// Oldest minor version of Kubernetes 1 whose kubectl we promise to serve.
const MINOR_MIN: u64 = 32;

/// The Debian release whose package is new enough.
const RELEASE: &str = "trixie";

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
    let kept = cache::dir()?.join(format!("kubectl-{RELEASE}"));
    let mut candidates: Vec<PathBuf> = on_path.unwrap_or_default();
    candidates.push(unpacked(&kept));
    if let Some(found) = candidates.into_iter().find(|path| minor(path).is_some_and(|found| found >= MINOR_MIN)) {
        return Ok(found);
    }
    let _lock = cache::lock("kubectl")?;
    fetch(&kept).with_context(|| {
        format!("there is no kubectl 1.{MINOR_MIN} or later: install one, or set {VARIABLE} to its path")
    })?;
    let fetched = unpacked(&kept);
    match minor(&fetched) {
        Some(found) if found >= MINOR_MIN => Ok(fetched),
        found => bail!("the kubectl of Debian {RELEASE} is not 1.{MINOR_MIN} or later: {found:?}"),
    }
}

fn unpacked(kept: &Path) -> PathBuf {
    kept.join("root/usr/bin/kubectl")
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

/// Downloads and unpacks Debian's package, with lists of its own, so that the system's stay as they are.
fn fetch(kept: &Path) -> Result<()> {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if !Path::new(KEYRING).exists() {
        bail!("Debian's keys are not there ({KEYRING}), so its kubectl cannot be checked");
    }
    eprintln!("kubectl of Debian {RELEASE} is fetched once, which takes about half a minute");
    let _ = std::fs::remove_dir_all(kept);
    for dir in ["lists/partial", "archives/partial", "root"] {
        std::fs::create_dir_all(kept.join(dir)).with_context(|| format!("making {}", kept.display()))?;
    }
    let source = format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE} main\n");
    std::fs::write(kept.join("sources.list"), source).context("writing a list of sources")?;
    std::fs::write(kept.join("status"), "").context("writing an empty list of packages")?;
    let set = |name: &str, path: &str| format!("{name}={}", kept.join(path).display());
    let options = [
        set("Dir::Etc::sourcelist", "sources.list"),
        "Dir::Etc::sourceparts=-".to_owned(),
        "Dir::Etc::preferencesparts=-".to_owned(),
        set("Dir::State::lists", "lists"),
        // What is installed has no say in what is fetched.
        set("Dir::State::status", "status"),
        set("Dir::Cache", "."),
        set("Dir::Cache::archives", "archives"),
        // Descriptions and icons are not needed.
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        // Whoever runs this owns the directories; apt's own user does not.
        "APT::Sandbox::User=".to_owned() + &user(),
    ];
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new("apt-get");
        command.current_dir(kept).arg("-qq");
        for option in &options {
            command.arg("-o").arg(option);
        }
        run(command.args(arguments))
    };
    apt(&["update"])?;
    apt(&["download", "kubectl"])?;
    let package = std::fs::read_dir(kept)
        .context("reading what was downloaded")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("apt-get downloaded nothing")?;
    run(Command::new("dpkg").arg("-x").arg(&package).arg(kept.join("root")))?;
    for rest in ["lists", "archives"] {
        let _ = std::fs::remove_dir_all(kept.join(rest));
    }
    let _ = std::fs::remove_file(package);
    Ok(())
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output();
    output.map_or_else(|_| "root".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    // What it prints is for a person; our own output is the path.
    let output = command.output().with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
