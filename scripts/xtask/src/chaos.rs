//! `cargo xtask chaos`: builds what is broken and what breaks it, and becomes the latter.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::rocksdb;
use crate::workspace::Workspace;

/// Arguments of `chaos`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Given to the program as they are; --help tells them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(workspace: &Workspace, Args { arguments }: &Args) -> Result<()> {
    let library = rocksdb::ensure(workspace)?;
    let place = workspace.target_directory.join("ci");
    if !place.join("quiltd").exists() {
        eprintln!("quiltd and what breaks it are built, which takes about 5 minutes the first time");
    }
    let mut build = workspace.cargo();
    build.args(["build", "--locked", "--profile", "ci", "--package", "quiltd", "--package", "cluster-tests"]);
    build.args(["--package", "cluster-tests-shim", "--bins", "--lib"]);
    if arguments.iter().any(|argument| argument == "--simulate" || argument == "--museum") {
        build.args(["--package", "simulation"]);
    }
    let status = rocksdb::link(&mut build, &library).status().context("running cargo build")?;
    if !status.success() {
        bail!("what is to be broken did not build");
    }
    let program = place.join("chaos");
    let mut chaos = Command::new(&program);
    // The museum runs tests of crates, by cargo.
    rocksdb::link(&mut chaos, &library);
    chaos.env("QUILTD_BIN", place.join("quiltd"));
    chaos.env("QUILTD_FAULT_SHIM", place.join("libquilt_fault_shim.so"));
    Err(chaos.args(arguments).exec()).with_context(|| format!("starting {}", program.display()))
}
