//! Ring c: whole control planes in virtual time. Every failure here is repeated by `simulate --seeds N --pace P`.

use std::path::Path;

use simulation::seeds::kept;
use simulation::{Options, Pace, museum, run, simulate};

/// openraft's suite passes on the modelled disk as it does on RocksDB: what the disk promises is what a log needs. The case of
/// openraft #1892 is among them.
#[test]
fn openraft_suite_on_the_modelled_disk() {
    assert_eq!(simulation::suite(), Ok(()));
}

/// What was broken once stays mended: every seed that is kept is run first, for ever.
#[test]
fn kept_seeds_hold() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    for kept in kept(&dir).expect("the kept seeds are read") {
        let verdict = simulate(kept.seed, &Options { seconds: kept.seconds, pace: kept.pace, ..Options::default() });
        assert_eq!(verdict.violation, None, "{verdict}");
    }
}

/// Everything that happens follows from the seed: the same one twice gives the same trace, another one another.
#[test]
fn the_same_seed_gives_the_same_trace() {
    for pace in [Pace::Busy, Pace::Usual] {
        let options = Options { seconds: 10, pace: Some(pace), ..Options::default() };
        let worlds = || (1..3).map(|seed| simulate(seed, &options)).collect::<Vec<_>>();
        let (once, twice) = (worlds(), worlds());
        assert_eq!(once, twice);
        assert_ne!(once[0].trace_hash, once[1].trace_hash);
    }
}

/// Worlds of one pace in CI: in how many tests, which share the processors, and how many worlds in each.
const BUSY: (u64, u64) = (2, 20);
const USUAL: (u64, u64) = (4, 8);
const QUIET: (u64, u64) = (6, 3);
/// Virtual seconds under faults of a busy world.
const SECONDS: u64 = 60;

/// All of them together are a simulated day.
#[test]
fn a_day_is_simulated() {
    let all = [(Pace::Busy, BUSY), (Pace::Usual, USUAL), (Pace::Quiet, QUIET)];
    let seconds: u64 = all.iter().map(|(pace, (tests, worlds))| tests * worlds * SECONDS * pace.stretch()).sum();
    assert!(seconds >= 86_400, "{seconds} s are no day");
}

/// A fixed set of seeds, for every change: faults under load, then everything healed and in agreement.
fn worlds_hold(pace: Pace, part: u64, (tests, worlds): (u64, u64)) {
    assert!(part < tests, "it is not counted");
    let options = Options { seconds: SECONDS, pace: Some(pace), ..Options::default() };
    let first = 100 + 100 * part;
    let report = run(first..first + worlds, &options, |_| {});
    assert!(report.failed.is_empty(), "{report}\n{:#?}", report.failed);
    let tally = report.all().tally;
    let least = tally.applied.min(tally.reads).min(tally.events).min(tally.faults).min(tally.elections);
    assert!(least >= worlds, "what was not done was not tested: {report}");
}

macro_rules! worlds {
    ($($name:ident: $pace:ident, $part:literal, $worlds:ident;)*) => {
        $(
            #[test]
            fn $name() {
                worlds_hold(Pace::$pace, $part, $worlds);
            }
        )*
    };
}

worlds! {
    quiet_worlds_hold_0: Quiet, 0, QUIET;
    quiet_worlds_hold_1: Quiet, 1, QUIET;
    quiet_worlds_hold_2: Quiet, 2, QUIET;
    quiet_worlds_hold_3: Quiet, 3, QUIET;
    quiet_worlds_hold_4: Quiet, 4, QUIET;
    quiet_worlds_hold_5: Quiet, 5, QUIET;
    usual_worlds_hold_0: Usual, 0, USUAL;
    usual_worlds_hold_1: Usual, 1, USUAL;
    usual_worlds_hold_2: Usual, 2, USUAL;
    usual_worlds_hold_3: Usual, 3, USUAL;
    busy_worlds_hold_0: Busy, 0, BUSY;
    busy_worlds_hold_1: Busy, 1, BUSY;
}

/// Exhibits of one area.
fn museum_convicts(part: usize, of: usize) {
    let mut survived = Vec::new();
    let pieces = museum::PIECES.iter().skip(part).step_by(of);
    let all = museum::run(pieces, |trial| {
        if !trial.is_convicted() {
            survived.push(trial.to_string());
        }
    });
    assert!(all, "{survived:#?}");
}

/// A simulation that lets a planted bug pass proves nothing: each of the museum is convicted by its seed.
#[test]
fn the_museum_convicts_all_0() {
    museum_convicts(0, 2);
}

/// The other half of them.
#[test]
fn the_museum_convicts_all_1() {
    museum_convicts(1, 2);
}

/// The page for readers has every rule and every exhibit.
#[test]
fn the_page_has_every_rule_and_exhibit() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/simulation.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let exhibits = museum::PIECES.iter().map(|piece| piece.name);
    let missing: Vec<_> = simulation::invariant::names()
        .into_iter()
        .chain(exhibits)
        .filter(|name| !page.contains(&format!("| {name} |")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
