//! The layer between a process and its disk and clock, on its own: ordinary programs run on it, and each way in which it can go wrong is
//! seen by them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use cluster_tests::binary;
use cluster_tests::fault::layer::Layer;
use cluster_tests::fault::{Clock, Tail};
use cluster_tests::random::Random;
use tempfile::TempDir;

struct Bench {
    directory: TempDir,
    layer: Layer,
}

impl Bench {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::create_dir(directory.path().join("data"))?;
        fs::write(directory.path().join("data/before"), "was there before")?;
        let layer = Layer::new(&binary::shim()?, &directory.path().join("control"), &directory.path().join("data"))?;
        Ok(Self { directory, layer })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("data").join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(arguments).envs(self.layer.environment()).current_dir(self.directory.path());
        command.output().with_context(|| format!("{program} cannot be run"))
    }

    /// Appends so many bytes to a file, and syncs it or not.
    fn append(&self, name: &str, bytes: u32, sync: Sync) -> Result<Output> {
        let (to, count) = (format!("of={}", self.file(name).display()), format!("count={bytes}"));
        let conv = if sync == Sync::Yes { "conv=notrunc,fsync" } else { "conv=notrunc" };
        self.run("dd", &["if=/dev/urandom", &to, "bs=1", &count, "oflag=append", conv])
    }

    fn length(&self, name: &str) -> u64 {
        fs::metadata(self.file(name)).map_or(0, |about| about.len())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Yes,
    No,
}

/// After a power cut there is of each file what was synced, also of one that was renamed since, and of one that was there before, all.
#[test]
fn a_power_cut_drops_what_was_not_synced() -> Result<()> {
    let bench = Bench::new()?;
    ensure!(bench.append("log", 100, Sync::Yes)?.status.success());
    ensure!(bench.append("log", 50, Sync::No)?.status.success());
    ensure!(bench.append("never", 70, Sync::No)?.status.success());
    fs::rename(bench.file("log"), bench.file("renamed"))?;
    ensure!(bench.layer.syncs()? == 1);
    let dropped = bench.layer.power_cut(Tail::Dropped, &mut Random::new(1))?;
    ensure!((bench.length("renamed"), bench.length("never")) == (100, 0), "{dropped:?}");
    ensure!((dropped.files, dropped.bytes) == (2, 120), "{dropped:?}");
    ensure!(fs::read_to_string(bench.file("before"))? == "was there before");
    ensure!(bench.layer.power_cut(Tail::Dropped, &mut Random::new(1))?.files == 0, "what survived is durable");
    Ok(())
}

/// Torn, a file keeps a beginning of what was not synced, and never loses what was.
#[test]
fn a_torn_write_keeps_what_was_synced() -> Result<()> {
    let bench = Bench::new()?;
    ensure!(bench.append("log", 1_000, Sync::Yes)?.status.success());
    ensure!(bench.append("log", 9_000, Sync::No)?.status.success());
    let whole = fs::read(bench.file("log"))?;
    bench.layer.power_cut(Tail::Torn, &mut Random::new(3))?;
    let left = fs::read(bench.file("log"))?;
    ensure!((1_000..10_000).contains(&left.len()) && left[..1_000] == whole[..1_000], "{} bytes are left", left.len());
    Ok(())
}

/// The n-th sync fails, alone. What was not durable then never becomes so, though later syncs succeed.
#[test]
fn a_failed_sync_loses_what_it_was_to_save() -> Result<()> {
    let bench = Bench::new()?;
    bench.layer.fail_sync(2)?;
    ensure!(bench.append("log", 10, Sync::Yes)?.status.success());
    let failed = bench.append("log", 10, Sync::Yes)?;
    ensure!(!failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("Input/output error"));
    ensure!(bench.append("log", 10, Sync::Yes)?.status.success());
    ensure!(bench.length("log") == 30);
    bench.layer.power_cut(Tail::Dropped, &mut Random::new(1))?;
    ensure!(bench.length("log") == 10);
    Ok(())
}

/// A full disk refuses what does not fit, takes it again when it has space, and files elsewhere are not touched.
#[test]
fn a_full_disk_refuses() -> Result<()> {
    let bench = Bench::new()?;
    bench.layer.leave_space(100)?;
    ensure!(bench.append("log", 90, Sync::No)?.status.success());
    let refused = bench.append("log", 90, Sync::No)?;
    ensure!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("No space left"));
    ensure!(bench.length("log") == 100);
    ensure!(bench.run("dd", &["if=/dev/zero", "of=elsewhere", "bs=1000", "count=1"])?.status.success());
    bench.layer.heal()?;
    ensure!(bench.append("log", 90, Sync::No)?.status.success());
    Ok(())
}

/// A slow disk takes its time for every sync.
#[test]
fn a_slow_disk_is_slow() -> Result<()> {
    let bench = Bench::new()?;
    bench.layer.slow_syncs(Duration::from_millis(300))?;
    let begun = Instant::now();
    ensure!(bench.append("log", 10, Sync::Yes)?.status.success());
    ensure!(begun.elapsed() >= Duration::from_millis(300));
    Ok(())
}

/// The wall clock jumps, stands still and drifts, and tells the truth again.
#[test]
fn clocks_lie() -> Result<()> {
    let bench = Bench::new()?;
    let shown =
        || -> Result<f64> { Ok(String::from_utf8(bench.run("date", &["+%s.%N"])?.stdout)?.trim().parse::<f64>()?) };
    let truth = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64());
    let off = || -> Result<f64> { Ok(shown()? - truth()?) };
    ensure!(off()?.abs() < 5.0);
    bench.layer.set_clock(Some(Clock::Jump(86_400)))?;
    ensure!((off()? - 86_400.0).abs() < 5.0);
    bench.layer.set_clock(Some(Clock::Jump(-86_400)))?;
    ensure!((off()? + 86_400.0).abs() < 5.0);
    bench.layer.set_clock(Some(Clock::Frozen))?;
    let stands = shown()?;
    std::thread::sleep(Duration::from_millis(200));
    ensure!((shown()? - stands).abs() < 0.000_1);
    bench.layer.set_clock(Some(Clock::Drift(1_000)))?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(off()? > 4.0, "ten times as fast for half a second, off by {}", off()?);
    bench.layer.set_clock(None)?;
    ensure!(off()?.abs() < 5.0);
    Ok(())
}

/// The harness learns which process runs on the layer, and that another does not.
#[test]
fn the_layer_shows_that_it_is_there() -> Result<()> {
    let bench = Bench::new()?;
    ensure!(bench.layer.check_loaded(1).is_err());
    let mut child = Command::new("sleep").arg("60").envs(bench.layer.environment()).spawn()?;
    let begun = Instant::now();
    while bench.layer.check_loaded(child.id()).is_err() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let loaded = bench.layer.check_loaded(child.id());
    child.kill()?;
    child.wait()?;
    loaded
}
