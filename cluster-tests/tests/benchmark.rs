//! The benchmark itself, and the goals it counts that do not depend on how fast or how busy a host is.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use cluster_tests::bench::syncs;
use cluster_tests::binary;
use serde_json::Value;

/// What is counted, and the most it may be: `quality.md` section 11 lets these decide over a change.
const COUNTS: [(&str, f64); 3] = [
    ("fsyncs-per-commit/256c/1KiB", 0.05),
    ("bytes-written-per-payload-byte/256c/1KiB", 5.0),
    ("kib-per-idle-watch/10000c/256B", 16.0),
];

/// A short run of the benchmark, without a peer, writes the rows that it is asked for, and what it counts is within the goals.
#[test]
fn counts_are_within_their_goals() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let told = directory.path().join("rows.json");
    let mut command = Command::new(binary::example("store")?);
    command.env("QUILTD_BIN", binary::quiltd()?).args(["--quick", "--minutes", "1", "--keys", "2000", "--json"]);
    command.arg(&told).arg("--dir").arg(directory.path());
    let counted = syncs::method().is_some();
    let rows = COUNTS.iter().filter(|(row, _)| counted || !row.starts_with("fsyncs"));
    let rows: Vec<_> = rows.chain(&[("put/256c/1KiB", f64::INFINITY)]).collect();
    for (row, _) in &rows {
        command.args(["--row", row]);
    }
    if !counted {
        eprintln!("NOT SHOWN: syncs for each commit, since neither perf nor strace can count them here");
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let written: Value = serde_json::from_slice(&std::fs::read(&told)?)?;
    let written = written["rows"].as_array().context("rows")?;
    for (name, most) in rows {
        let row = written.iter().find(|row| row["row"] == *name).with_context(|| format!("no row {name}: {said}"))?;
        for part in ["unit", "ours", "peer", "ratio", "ratio_low", "ratio_high"] {
            ensure!(row.get(part).is_some(), "{name} has no {part}");
        }
        let ours = row["ours"].as_f64().with_context(|| format!("{name} has no figure"))?;
        ensure!(ours > 0.0 && ours <= *most, "{name} is {ours}, more than {most}: {said}");
    }
    Ok(())
}
