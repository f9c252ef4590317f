//! RocksDB, built once: its C++ takes about fifteen minutes on two cores, so the library is kept outside the clone.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cache;
use crate::workspace::Workspace;

const SYS: &str = "librocksdb-sys";
const ARCHIVE: &str = "librocksdb.a";

/// Variables under which cargo links the kept library; builds it first when there is none for this version.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    if let Some(dir) = std::env::var_os("ROCKSDB_LIB_DIR") {
        return Ok(variables(dir.into()));
    }
    let sys = workspace.packages.iter().find(|package| package.name == SYS);
    let version = &sys.with_context(|| format!("nothing depends on {SYS}"))?.version;
    let dir = cache::dir()?.join(format!("rocksdb-{version}-{}", key()?));
    if !dir.join(ARCHIVE).exists() {
        let _lock = cache::lock("rocksdb")?;
        // Another process may have made it while we waited.
        if !dir.join(ARCHIVE).exists() {
            build(workspace, &dir)?;
        }
    }
    Ok(variables(dir))
}

fn variables(dir: PathBuf) -> Vec<(&'static str, PathBuf)> {
    vec![("ROCKSDB_LIB_DIR", dir), ("ROCKSDB_STATIC", "1".into())]
}

/// What the library depends on besides its version: compiler, machine, and how it is built.
fn key() -> Result<String> {
    let output = Command::new("g++").arg("-dumpfullversion").output();
    let output = output.context("running g++: install it, or run ./scripts/test, which does")?;
    let compiler = String::from_utf8_lossy(&output.stdout);
    // Raise the number when the way of building changes.
    Ok(format!("{}-gcc{}-lz4-1", std::env::consts::ARCH, compiler.trim()))
}

/// The line of cargo's report that tells where a build script wrote.
#[derive(Deserialize)]
struct ScriptRan {
    reason: String,
    package_id: Option<String>,
    out_dir: Option<PathBuf>,
}

/// Builds the library with full optimisation, whatever profile it is linked into, and moves it into the cache whole.
fn build(workspace: &Workspace, dir: &Path) -> Result<()> {
    eprintln!("RocksDB is built once, which takes about 15 minutes on two cores; it is kept in {}", dir.display());
    let scratch = cache::dir()?.join("rocksdb-build");
    let mut child = workspace
        .cargo()
        .args(["build", "--locked", "--release", "--package", SYS, "--message-format", "json-render-diagnostics"])
        .arg("--target-dir")
        .arg(&scratch)
        .stdout(Stdio::piped())
        .spawn()
        .context("running cargo build")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(std::io::Result::ok);
        let ran = lines.filter_map(|line| serde_json::from_str::<ScriptRan>(&line).ok());
        let ours = |ran: &ScriptRan| {
            ran.reason == "build-script-executed" && ran.package_id.as_ref().is_some_and(|id| id.contains(SYS))
        };
        ran.filter(ours).filter_map(|ran| ran.out_dir).last()
    });
    let started = Instant::now();
    let mut told = 0;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for cargo build")? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(200));
        let minutes = started.elapsed().as_secs() / 60;
        if minutes > told {
            told = minutes;
            eprintln!("  … building RocksDB, {minutes} min");
        }
    };
    let out_dir = reader.join().ok().flatten();
    if !status.success() {
        bail!("RocksDB did not build; the compiler's message is above");
    }
    let archive = out_dir.context("cargo did not say where RocksDB was built")?.join(ARCHIVE);
    let beside = dir.with_extension("new");
    let _ = std::fs::remove_dir_all(&beside);
    std::fs::create_dir_all(&beside).with_context(|| format!("making {}", beside.display()))?;
    std::fs::copy(&archive, beside.join(ARCHIVE)).with_context(|| format!("copying {}", archive.display()))?;
    std::fs::rename(&beside, dir).with_context(|| format!("making {}", dir.display()))?;
    std::fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
    let seconds = started.elapsed().as_secs();
    eprintln!("RocksDB is built, {} min {} s", seconds / 60, seconds % 60);
    Ok(())
}

/// Hands the library to a call of cargo.
pub(crate) fn link<'a>(command: &'a mut Command, variables: &[(&'static str, PathBuf)]) -> &'a mut Command {
    command.envs(variables.iter().map(|(name, value)| (OsStr::new(*name), value.as_os_str())))
}
