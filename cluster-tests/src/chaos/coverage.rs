//! Which promise is shown under which fault: computed from the table of scenarios, held against what must be there.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::scenario::{SCENARIOS, Scenario};
use crate::oracle::Promise::{self, G1, G2, G3, G4, G5, G6, G7, G10, G11, G13, G15, G16, G17, G20, G21};

/// Faults under which a promise must be shown by at least one scenario.
pub const REQUIRED: &[(Promise, &[&str])] = &[
    (G1, ALL),
    (G2, &["pause", "clock", "cut", "membership", "kill"]),
    (G3, &["kill", "power cut", "disk", "rot"]),
    (G4, &["kill", "client links", "absence", "membership"]),
    (G5, &["kill", "restart", "client links"]),
    (G6, &["kill", "power cut", "client links", "clock"]),
    (G7, &["kill", "pause", "cut"]),
    (G10, &["upgrade"]),
    (G11, &["membership"]),
    (G13, &["rot", "peer links", "client links"]),
    (G15, &["clock"]),
    (G16, &["disk"]),
    (G17, &["cut", "pause"]),
    (G20, ALL),
    (G21, &["kill", "client links", "power cut", "peer links"]),
];

/// All kinds of faults.
pub const ALL: &[&str] = &[
    "absence",
    "backups",
    "client links",
    "clock",
    "cut",
    "disk",
    "kill",
    "membership",
    "none",
    "pause",
    "peer links",
    "power cut",
    "restart",
    "rot",
    "upgrade",
];

/// How many scenarios show each promise under each kind of fault.
#[must_use]
pub fn cells() -> BTreeMap<(Promise, &'static str), u64> {
    let mut cells = BTreeMap::new();
    for scenario in SCENARIOS {
        for promise in scenario.judged() {
            for kind in scenario.kinds() {
                *cells.entry((promise, kind)).or_default() += 1;
            }
        }
    }
    cells
}

/// What must be there and is not.
#[must_use]
pub fn missing() -> Vec<String> {
    let cells = cells();
    let required = REQUIRED.iter().flat_map(|(promise, kinds)| kinds.iter().map(move |kind| (*promise, *kind)));
    let absent = required.filter(|cell| !cells.contains_key(cell));
    absent.map(|(promise, kind)| format!("no scenario shows {promise} under {kind}")).collect()
}

/// The page of reference: all scenarios, and the table of what they cover.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Scenarios of chaos\n\n\
         Written by a test out of `cluster-tests/src/chaos/scenario.rs`; how to run them: [chaos](../operate/chaos.md).\n\n\
         | scenario | what it shows | faults | beyond G1 to G5, G20, G21 |\n| --- | --- | --- | --- |\n",
    );
    for Scenario { name, shows, phases, promises, .. } in SCENARIOS {
        let phases = phases.iter().map(|phase| {
            let faults: Vec<String> = phase.faults.iter().map(ToString::to_string).collect();
            faults.join(" and ")
        });
        let phases: Vec<String> = phases.filter(|phase| !phase.is_empty()).collect();
        let promises: Vec<String> = promises.iter().map(ToString::to_string).collect();
        let _infallible = writeln!(page, "| {name} | {shows} | {} | {} |", phases.join("; then "), promises.join(", "));
    }
    page.push_str("\n## What they cover\n\nScenarios in which a promise is judged under a fault.\n\n| |");
    for kind in ALL {
        let _infallible = write!(page, " {kind} |");
    }
    page.push_str("\n|---|");
    page.push_str(&"---|".repeat(ALL.len()));
    page.push('\n');
    let cells = cells();
    for (promise, _) in REQUIRED {
        let _infallible = write!(page, "| {promise} |");
        for kind in ALL {
            let count = cells.get(&(*promise, *kind)).map(ToString::to_string).unwrap_or_default();
            let _infallible = write!(page, " {count} |");
        }
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every promise has a scenario under every fault that must not break it, every kind of fault is known, and names are unique.
    #[test]
    fn no_cell_is_missing() {
        assert_eq!(missing(), Vec::<String>::new());
        let names: BTreeSet<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        assert!(SCENARIOS.len() >= 30);
        for scenario in SCENARIOS {
            assert!(scenario.kinds().iter().all(|kind| ALL.contains(kind)), "{}", scenario.name);
        }
    }

    /// The page says what the table says; `UPDATE=1` writes it.
    #[test]
    fn the_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/chaos.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, page()).expect("the page is written");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page(), "run this test with UPDATE=1");
    }
}
