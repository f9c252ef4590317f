//! The result as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::pairs::Row;
use super::run::{Peer, Results};

/// A table of all rows, and below it what has to be known to judge them.
#[must_use]
pub fn table(results: &Results) -> String {
    let mut text = String::new();
    let peer = results.peer.as_ref().map_or("etcd", Peer::name);
    let _ = writeln!(text, "{:<42} {:>11} {peer:>11}  {:>6}  {:<15} unit", "row", "quiltd", "ratio", "95 % interval");
    for row in results.cases.iter().flat_map(|(_, measured)| &measured.rows) {
        let _ = writeln!(text, "{}", line(row));
    }
    text.push('\n');
    for (case, measured) in &results.cases {
        let Some(name) = case.rows().into_iter().next().filter(|_| case.clients > 0) else { continue };
        let mut notes = vec![format!("{} pairs", measured.pairs)];
        if measured.discarded > 0 {
            notes.push(format!("{} thrown away because the disk changed between their slices", measured.discarded));
        }
        if let Some(probe) = measured.probe {
            notes.push(format!("sync probe {probe:.0?}"));
        }
        if let Some(percent) = measured.foreign_percent {
            notes.push(format!("{percent} % of the processors went to other programs"));
        }
        if let Some(percent) = measured.stolen_percent.filter(|percent| *percent > 0) {
            notes.push(format!("{percent} % were kept by the machine's host"));
        }
        let failures = &measured.failures;
        if failures.ours + failures.peer > 0 {
            let error = failures.first.as_deref().unwrap_or_default();
            notes.push(format!("errors {} and {} ({error})", failures.ours, failures.peer));
        }
        let _ = writeln!(text, "{name}: {}", notes.join(", "));
    }
    text
}

fn line(row: &Row) -> String {
    let peer = row.peer.map_or_else(|| "absent".to_owned(), number);
    let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let interval = match (row.ratio_low, row.ratio_high) {
        (Some(low), Some(high)) => format!("{low:.2} .. {high:.2}"),
        _ => "-".to_owned(),
    };
    format!("{:<42} {:>11} {peer:>11}  {ratio:>6}  {interval:<15} {}", row.row, number(row.ours), row.unit)
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

/// The rows, and beside them the circumstances.
#[must_use]
pub fn json(results: &Results, about: &Value) -> Value {
    let rows: Vec<&Row> = results.cases.iter().flat_map(|(_, measured)| &measured.rows).collect();
    let cases = results.cases.iter().filter(|(case, _)| case.clients > 0).map(|(case, measured)| {
        json!({
            "row": case.rows().first(),
            "pairs": measured.pairs,
            "discarded": measured.discarded,
            "errors_ours": measured.failures.ours,
            "errors_peer": measured.failures.peer,
            "error": measured.failures.first,
            "sync_probe_us": measured.probe.map(|probe| probe.as_micros()),
            "foreign_cpu_percent": measured.foreign_percent,
            "stolen_cpu_percent": measured.stolen_percent,
        })
    });
    json!({ "rows": rows, "cases": cases.collect::<Vec<_>>(), "about": about })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pairs::Pair;

    /// A row stands in the table with its ratio and interval, and an absent peer as absent.
    #[test]
    fn rows_are_readable() {
        let pairs: Vec<Pair> = (0..5).map(|_| Pair { ours: 20_000.0, peer: Some(10_000.0) }).collect();
        let row = Row::of("put/256c/256B".into(), "1/s", &pairs).expect("pairs");
        let text = line(&row);
        assert!(text.contains("20000") && text.contains("2.00 .. 2.00"), "{text}");
        let alone = Row::of("put/256c/256B".into(), "1/s", &[Pair { ours: 0.5, peer: None }]).expect("a slice");
        let text = line(&alone);
        assert!(text.contains("absent") && !text.contains(".."), "{text}");
    }
}
