//! `cargo xtask dev`: builds the binary and becomes it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::rocksdb;
use crate::workspace::Workspace;

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
    let error = Command::new(&binary).arg("dev").args(&args.arguments).exec();
    Err(error).with_context(|| format!("starting {}", binary.display()))
}
