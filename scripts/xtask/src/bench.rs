//! `cargo xtask bench`: builds what is measured, finds what it is compared with, and becomes the measuring program.

use std::env::var_os;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{debian, rocksdb};

/// What can be measured.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// The store of three replicas, side by side with three members of etcd.
    Store(Args),
}

/// Arguments of one of them.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Given to the measuring program as they are; --help tells them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// How everything measured is built: the profile that ships.
const PROFILE: &str = "release";

pub(crate) fn run(workspace: &Workspace, bench: &Bench) -> Result<()> {
    let Bench::Store(Args { arguments }) = bench;
    let library = rocksdb::ensure(workspace)?;
    let place = workspace.target_directory.join(PROFILE);
    if !place.join("quiltd").exists() {
        eprintln!("quiltd and the load are built in profile {PROFILE}, which takes about 20 minutes the first time");
    }
    let mut build = workspace.cargo();
    build.args(["build", "--locked", "--profile", PROFILE, "--package", "quiltd", "--package", "cluster-tests"]);
    build.args(["--bin", "quiltd", "--example", "store"]);
    let status = rocksdb::link(&mut build, &library).status().context("running cargo build")?;
    if !status.success() {
        bail!("what is to be measured did not build");
    }
    let program = place.join("examples/store");
    let mut store = Command::new(&program);
    store.env("QUILTD_BIN", place.join("quiltd")).args(["--built", &built()]);
    // What is named there is taken as it is.
    let named =
        |argument: &OsString| ["--etcd", "--against"].iter().any(|flag| argument.to_string_lossy().starts_with(flag));
    if !arguments.iter().any(named) {
        match etcd() {
            Ok(etcd) => {
                store.arg("--etcd").arg(etcd);
            }
            Err(error) => eprintln!("there is no etcd to compare with: {error:#}"),
        }
    }
    Err(store.args(arguments).exec()).with_context(|| format!("starting {}", program.display()))
}

/// The profile, and what of it the environment has changed.
fn built() -> String {
    let changed = std::env::vars_os().filter_map(|(name, value)| {
        let setting = name.to_str()?.strip_prefix("CARGO_PROFILE_RELEASE_")?.to_lowercase();
        Some(format!(", {setting}={}", value.to_string_lossy()))
    });
    format!("profile {PROFILE}{}", changed.collect::<String>())
}

/// One that is there, else Debian's.
fn etcd() -> Result<PathBuf> {
    let on_path = var_os("PATH").map(|path| std::env::split_paths(&path).map(|dir| dir.join("etcd")).collect());
    let mut candidates: Vec<PathBuf> = on_path.unwrap_or_default();
    candidates.push(debian::kept("etcd-server")?.join("usr/bin/etcd"));
    if let Some(found) = candidates.into_iter().find(|path| runs(path)) {
        return Ok(found);
    }
    let fetched = debian::fetch("etcd-server")?.join("usr/bin/etcd");
    if runs(&fetched) { Ok(fetched) } else { bail!("the etcd of Debian {} does not run here", debian::RELEASE) }
}

fn runs(etcd: &Path) -> bool {
    etcd.is_file() && Command::new(etcd).arg(OsStr::new("--version")).output().is_ok_and(|told| told.status.success())
}
