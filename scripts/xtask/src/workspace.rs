//! [`Workspace`]: what cargo says about our crates and theirs, and cargo itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The one target that is built, so that crates of other systems do not count.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What `cargo metadata` tells, as far as we ask.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    workspace_members: Vec<String>,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
    resolve: Resolve,
}

/// One crate.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a crate's dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

impl Workspace {
    /// Asks cargo. Fails when `Cargo.lock` does not fit the manifests.
    pub(crate) fn load() -> Result<Self> {
        let output = Command::new(cargo_program())
            .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET])
            .stderr(Stdio::inherit())
            .output()
            .context("running cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed: if Cargo.lock is behind the manifests, run cargo check and commit it");
        }
        serde_json::from_slice(&output.stdout).context("reading cargo metadata")
    }

    /// Our own crates.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Everything a build of the workspace on our target takes in.
    pub(crate) fn reached(&self) -> BTreeMap<&str, &Package> {
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let packages: BTreeMap<&str, &Package> = self.packages.iter().map(|p| (p.id.as_str(), p)).collect();
        let mut reached = BTreeMap::new();
        let mut open: Vec<&str> = self.workspace_members.iter().map(String::as_str).collect();
        while let Some(id) = open.pop() {
            if let Some(package) = packages.get(id)
                && reached.insert(id, *package).is_none()
                && let Some(node) = nodes.get(id)
            {
                open.extend(node.dependencies.iter().map(String::as_str));
            }
        }
        reached
    }

    /// Tracked and new files, relative to the root.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let output = Command::new("git")
            .current_dir(&self.workspace_root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .context("running git ls-files")?;
        if !output.status.success() {
            bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8(output.stdout).context("file names are not text")?;
        let there = |name: &&str| !name.is_empty() && self.workspace_root.join(name).exists();
        Ok(text.split('\0').filter(there).map(str::to_owned).collect())
    }

    /// A cargo call in the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(cargo_program());
        cargo.current_dir(&self.workspace_root);
        cargo
    }
}

fn cargo_program() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// A path as it is written in messages: relative to the root where it can be.
pub(crate) fn shown<'a>(root: &Path, path: &'a Path) -> std::path::Display<'a> {
    path.strip_prefix(root).unwrap_or(path).display()
}

/// Turns a list of complaints into a result.
pub(crate) fn verdict(mut complaints: Vec<String>) -> Result<()> {
    if complaints.is_empty() {
        return Ok(());
    }
    complaints.sort();
    let count = complaints.len();
    bail!("{}\n{count} in all", complaints.join("\n"))
}
