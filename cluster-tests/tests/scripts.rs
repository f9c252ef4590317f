//! The scripts on a machine that lacks something: what they say, and that they change nothing they were not told to.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// What every machine has, as far as the scripts use it.
const USUAL: &[&str] = &["bash", "env", "dirname", "sed", "cat", "head", "cut", "mkdir", "find", "rm"];

/// A machine: what is on its `PATH`.
struct Machine {
    directory: TempDir,
}

impl Machine {
    /// One without compiler and Rust, whose packages come from Debian.
    fn bare() -> Result<Self> {
        let machine = Self { directory: tempfile::Builder::new().prefix("quiltd-machine-").tempdir()? };
        std::fs::create_dir(machine.path("bin"))?;
        let path = std::env::var_os("PATH").context("there is a PATH")?;
        for name in USUAL {
            let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
            symlink(found.with_context(|| format!("{name} is not on the PATH"))?, machine.path("bin").join(name))?;
        }
        machine.with("uname", "echo Plan9 pdp11")?.with("id", "echo 1000")?.with("apt-get", APT_GET)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// The same with one more program.
    fn with(self, name: &str, script: &str) -> Result<Self> {
        let program = self.path("bin").join(name);
        std::fs::write(&program, format!("#!/usr/bin/env bash\n{script}\n"))?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        Ok(self)
    }

    /// Runs one of the repository's scripts with nobody to answer it.
    fn run(&self, script: &str, arguments: &[&str]) -> Result<Output> {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(script))
            .args(arguments)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"))
            // As if it were there: where it is looked for is not below the PATH.
            .env("LIBCLANG_PATH", "/usr/lib")
            .env("LOG", self.path("log"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{script} cannot be run"))
    }

    /// Calls of `apt-get`.
    fn installed(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

const APT_GET: &str = r#"echo "$*" >> "$LOG""#;
const PACKAGES: &str = "g++ curl ca-certificates";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Without root and sudo both scripts end with code 2 and one command that root can paste; nothing was tried.
#[test]
fn an_ordinary_user_is_told_the_one_command() -> Result<()> {
    let told = format!(
        "This machine lacks: {PACKAGES}. As root, run: apt-get update && apt-get install --yes \
         --no-install-recommends {PACKAGES}\n"
    );
    let asks_for_a_password = r#"[ "$1" = --non-interactive ] && exit 1; echo "sudo $*" >> "$LOG""#;
    for machine in [Machine::bare()?, Machine::bare()?.with("sudo", asks_for_a_password)?] {
        for (script, arguments) in [("dev", ["--yes"].as_slice()), ("dev", &[]), ("test", &["--yes"]), ("test", &[])] {
            let output = machine.run(script, arguments)?;
            ensure!(output.status.code() == Some(2) && said(&output) == told, "{script}: {output:?}");
            ensure!(machine.installed().is_empty(), "{script} did: {}", machine.installed());
        }
    }
    Ok(())
}

/// Root is asked before the system is changed; without anybody to answer nothing is.
#[test]
fn root_is_asked() -> Result<()> {
    let machine = Machine::bare()?.with("id", "echo 0")?;
    let output = machine.run("dev", &[])?;
    ensure!(output.status.code() == Some(2) && said(&output).contains("Nothing was changed"), "{output:?}");
    ensure!(said(&output).contains(&format!("apt-get install --yes --no-install-recommends {PACKAGES}\n")));
    ensure!(machine.installed().is_empty(), "it did: {}", machine.installed());
    Ok(())
}

/// With `--yes` exactly what was announced is installed, by root or with a sudo that needs no password; what cannot be
/// had in this way ends the script with code 2, too.
#[test]
fn what_was_agreed_is_installed() -> Result<()> {
    let sudo = r#"[ "$1" = --non-interactive ] && exit 0; exec "$@""#;
    for machine in [Machine::bare()?.with("id", "echo 0")?, Machine::bare()?.with("sudo", sudo)?] {
        let output = machine.run("dev", &["--yes", "--dir", "/nowhere"])?;
        let done = format!("update -qq\ninstall --yes --no-install-recommends {PACKAGES}\n");
        ensure!(machine.installed() == done, "{}", machine.installed());
        let end = "There is no Rust here, and none is fetched for Plan9 pdp11. Install it, then run this again.\n";
        ensure!(output.status.code() == Some(2) && said(&output).ends_with(end), "{output:?}");
    }
    Ok(())
}

/// On another system the packages are named for somebody who knows its own.
#[test]
fn other_systems_are_told_what_is_needed() -> Result<()> {
    let machine = Machine::bare()?;
    std::fs::remove_file(machine.path("bin/apt-get"))?;
    let output = machine.run("test", &["--yes"])?;
    ensure!(output.status.code() == Some(2) && said(&output).contains("Install their like"), "{output:?}");
    Ok(())
}

/// What cargo has built of another clone does not count as this one's, and of the same one it stays; dependencies always do.
#[test]
fn results_of_another_clone_are_forgotten() -> Result<()> {
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let toolchain = std::fs::read_to_string(clone.join("rust-toolchain.toml"))?;
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).context("a channel is set")?;
    let rustc = format!("echo rustc {channel} '(of today)'");
    let machine = Machine::bare()?.with("g++", "exit 0")?.with("cargo", "exit 0")?.with("rustc", &rustc)?;
    let target = machine.path("home/.cache/quiltd/target");
    let built = target.join("ci/.fingerprint");
    let names = ["quiltd-0123", "quilt-state-4567", "xtask-89ab", "serde-cdef"];
    let there = || names.map(|name| built.join(name).exists());
    for (of, stays) in [("/elsewhere", [false, false, false, true]), (clone.to_str().context("text")?, [true; 4])] {
        for name in names {
            std::fs::create_dir_all(built.join(name))?;
        }
        std::fs::write(target.join("clone"), format!("{of}\n"))?;
        let output = machine.run("test", &[])?;
        ensure!(output.status.success() && there() == stays, "of {of}: {:?}: {output:?}", there());
        ensure!(std::fs::read_to_string(target.join("clone"))? == format!("{}\n", clone.display()), "of {of}");
    }
    Ok(())
}
