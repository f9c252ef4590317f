//! Ring c: whole control planes in virtual time. Every failure here is repeated by `simulate --seeds N`.

use std::path::Path;

use simulation::seeds::kept;
use simulation::{Options, museum, run, simulate};

fn must_hold(seed: u64, seconds: u64) {
    let verdict = simulate(seed, &Options { seconds, trace: None });
    assert_eq!(verdict.violation, None, "{verdict}");
    assert!(verdict.applied > 0, "nothing was written: {verdict}");
}

/// openraft's suite passes on the modelled disk as it does on RocksDB: what the disk promises is what a log needs.
#[test]
fn openraft_suite_on_the_modelled_disk() {
    assert_eq!(simulation::suite(), Ok(()));
}

/// What was broken once stays mended: every seed that is kept is run first, for ever.
#[test]
fn kept_seeds_hold() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    for seed in kept(&dir).expect("the kept seeds are read") {
        must_hold(seed.seed, seed.seconds);
    }
}

/// Everything that happens follows from the seed: the same one twice gives the same trace, another one another.
#[test]
fn the_same_seed_gives_the_same_trace() {
    let options = Options { seconds: 10, trace: None };
    let once = run(1..4, &options, |_| {}).verdicts;
    let twice = run(1..4, &options, |_| {}).verdicts;
    assert_eq!(once, twice);
    assert_ne!(once[0].trace_hash, once[1].trace_hash);
}

/// A fixed set of seeds, for every change: faults under load, then everything healed and in agreement.
#[test]
fn fixed_seeds_hold() {
    for seed in 100..120 {
        must_hold(seed, 15);
    }
}

/// A simulation that lets a planted bug pass proves nothing: each of the museum is convicted by its seed.
#[test]
fn the_museum_convicts_all() {
    let mut survived = Vec::new();
    let all = museum::run(|trial| {
        if !trial.is_convicted() {
            survived.push(trial.to_string());
        }
    });
    assert!(all, "{survived:#?}");
}
