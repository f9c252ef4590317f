//! The gate, in the order in which a mistake is cheapest to learn of. Each step tells its time and, when it fails, what
//! to do. The last lines of a passing run are the test runner's own.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{edges, kubectl, licences, rocksdb, tidy};

/// One build profile serves lints, documents and tests.
const PROFILE: &str = "ci";

/// Arguments of `ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Given to the test runner: names of tests, or a filter. The whole gate runs all the same.
    tests: Vec<String>,
}

/// Runs every step; stops at the first that fails.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let gate = Gate { workspace, library: Vec::new() };
    step("formatting", "run cargo xtask fix", || check(workspace.cargo().args(["fmt", "--all", "--check"])))?;
    step("crate edges", "move the code to the crate that may know it", || edges::check(workspace))?;
    step("tidiness", "each line names the place", || tidy::check(workspace))?;
    step("licences", "see deny.toml: an exception needs a reason", || licences::check(workspace))?;
    let library = step("RocksDB", "its compiler's message is above", || rocksdb::ensure(workspace))?;
    let gate = Gate { library, ..gate };
    step("lints", "run cargo xtask fix, then repair the rest by hand", || gate.clippy())?;
    step("documents", "rustdoc's message is above", || gate.doc())?;
    let kubectl = step("kubectl", "the tests need one", gate_kubectl)?;
    step("test build", "the compiler's message is above", || gate.build_tests())?;
    step("examples in documents", "the failing example is above", || gate.doc_tests())?;
    eprintln!("── tests");
    gate.tests(kubectl, &args.tests)
}

/// Formats and applies what clippy can apply.
pub(crate) fn fix(workspace: &Workspace) -> Result<()> {
    let gate = Gate { workspace, library: rocksdb::ensure(workspace)? };
    check(gate.cargo().args([
        "clippy",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
        "--workspace",
        "--all-targets",
        "--profile",
        PROFILE,
    ]))?;
    check(gate.cargo().args(["fmt", "--all"]))
}

fn step<T>(name: &str, remedy: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    eprintln!("── {name}");
    match run() {
        Ok(value) => {
            eprintln!("   {name}: ok, {:.1} s", started.elapsed().as_secs_f32());
            Ok(value)
        }
        Err(error) => {
            let seconds = started.elapsed().as_secs_f32();
            Err(error.context(format!("{name} failed after {seconds:.1} s; {remedy}")))
        }
    }
}

fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {:?}", command.get_program()))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!("cargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// On a runner the tests may not go without; on a desk they say which of them did.
fn gate_kubectl() -> Result<Option<PathBuf>> {
    match kubectl::ensure() {
        Ok(path) => Ok(Some(path)),
        Err(error) if std::env::var_os("CI").is_some() => Err(error),
        Err(error) => {
            eprintln!("   WARNING: {error:#}\n   WARNING: tests that need kubectl are going to fail");
            Ok(None)
        }
    }
}

struct Gate<'a> {
    workspace: &'a Workspace,
    library: Vec<(&'static str, PathBuf)>,
}

impl Gate<'_> {
    fn cargo(&self) -> Command {
        let mut cargo = self.workspace.cargo();
        rocksdb::link(&mut cargo, &self.library);
        cargo
    }

    fn clippy(&self) -> Result<()> {
        let mut cargo = self.cargo();
        cargo.args(["clippy", "--workspace", "--all-targets", "--locked", "--profile", PROFILE]);
        check(cargo.args(["--", "-D", "warnings"]))
    }

    fn doc(&self) -> Result<()> {
        let mut cargo = self.cargo();
        // A crate's opening words name its private modules: they are read beside the source.
        cargo.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
        check(cargo.args(["doc", "--workspace", "--no-deps", "--locked", "--profile", PROFILE]))
    }

    /// Tests and the binaries they start.
    fn build_tests(&self) -> Result<()> {
        check(self.cargo().args([
            "build",
            "--package",
            "quiltd",
            "--package",
            "cluster-tests-shim",
            "--locked",
            "--profile",
            PROFILE,
        ]))?;
        let mut cargo = self.cargo();
        if has_nextest(self.workspace) {
            cargo.args(["nextest", "run", "--no-run", "--workspace", "--locked", "--cargo-profile", PROFILE]);
        } else {
            cargo.args(["test", "--no-run", "--workspace", "--all-targets", "--locked", "--profile", PROFILE]);
        }
        check(&mut cargo)
    }

    fn doc_tests(&self) -> Result<()> {
        check(self.cargo().args(["test", "--doc", "--quiet", "--workspace", "--locked", "--profile", PROFILE]))
    }

    fn tests(&self, kubectl: Option<PathBuf>, filter: &[String]) -> Result<()> {
        let mut cargo = self.cargo();
        if let Some(kubectl) = kubectl {
            cargo.env(kubectl::VARIABLE, kubectl);
        }
        cargo.env("QUILTD_BIN", self.workspace.target_directory.join(PROFILE).join("quiltd"));
        if has_nextest(self.workspace) {
            cargo.args(["nextest", "run", "--workspace", "--locked", "--cargo-profile", PROFILE, "--no-fail-fast"]);
            if !std::io::stderr().is_terminal() {
                cargo.args(["--status-level", "slow"]);
            }
        } else {
            eprintln!("   cargo-nextest is not there: running cargo test, which is slower and stops less cleanly");
            cargo.args(["test", "--workspace", "--all-targets", "--locked", "--profile", PROFILE, "--no-fail-fast"]);
        }
        check(cargo.args(filter)).context("tests failed; each failing test and its output is above")
    }
}

fn has_nextest(workspace: &Workspace) -> bool {
    workspace.cargo().args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}
