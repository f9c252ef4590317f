//! `cargo xtask dev`: builds the binary and becomes it.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{kubectl, rocksdb};

/// Arguments of `dev`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Given to `quiltd dev` as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds `quiltd` and replaces this process by `quiltd dev`, so that signals reach it.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let library = rocksdb::ensure(workspace)?;
    let binary = workspace.target_directory.join("ci/quiltd");
    if !binary.exists() {
        eprintln!("quiltd is built, which takes about 5 minutes the first time");
    }
    let mut build = workspace.cargo();
    build.args(["build", "--locked", "--profile", "ci", "--package", "quiltd"]);
    let status = rocksdb::link(&mut build, &library).status().context("running cargo build")?;
    if !status.success() {
        bail!("quiltd did not build");
    }
    link(workspace, &binary)?;
    let mut dev = Command::new(&binary);
    // What dev prints begins with kubectl. Without one everything else still works.
    match kubectl::ensure() {
        Ok(kubectl) => drop(dev.env(kubectl::VARIABLE, kubectl)),
        Err(error) => eprintln!("WARNING: {error:#}"),
    }
    let error = dev.arg("dev").args(&args.arguments).exec();
    Err(error).with_context(|| format!("starting {}", binary.display()))
}

/// Makes the binary reachable as `target/ci/quiltd`, where documents and people look for it, when cargo builds
/// elsewhere.
fn link(workspace: &Workspace, binary: &Path) -> Result<()> {
    let usual = workspace.workspace_root.join("target/ci/quiltd");
    if usual == binary || std::fs::read_link(&usual).is_ok_and(|target| target == binary) {
        return Ok(());
    }
    if let Some(dir) = usual.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    match std::fs::remove_file(&usual) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replacing {}", usual.display()));
        }
        _ => {}
    }
    symlink(binary, &usual).with_context(|| format!("linking {}", usual.display()))
}
