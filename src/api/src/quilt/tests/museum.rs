//! Exhibits of the bug museum: bugs planted into how a node joins, each convicted by what a token promises. The switch is there in these
//! tests only. Beside it, in a file each, those of watches and of what a request is judged by.

pub(crate) mod urls;
pub(crate) mod watches;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use futures::future::join_all;
use quilt_proto::Compare;

use super::{Plane, registration};
use crate::authn::token::JoinToken;
use crate::directory::Entry;
use crate::problem::Problem;

/// How often joiners come at once, with another number of uses and joiners each time.
const SEEDS: u64 = 12;
/// How often an exhibit is tried at most. Which joiners look before another's entry is the scheduler's choice: on a loaded host one
/// try in two convicts.
const TRIES: u64 = 200;

thread_local! {
    /// Whether the token is looked at once, before the entry that spends it, and never again.
    static OUTSIDE: Cell<bool> = const { Cell::new(false) };
    /// What that look has shown each registration.
    static SEEN: RefCell<BTreeMap<String, (Entry, JoinToken)>> = const { RefCell::new(BTreeMap::new()) };
}

/// What the first look of this registration has shown, if the bug is on show; else what this one does.
pub(in crate::quilt) fn admitted(
    now: Result<(Entry, JoinToken), Problem>,
    registration: &str,
) -> Result<(Entry, JoinToken), Problem> {
    if !OUTSIDE.get() {
        return now;
    }
    match SEEN.with_borrow(|seen| seen.get(registration).cloned()) {
        Some(first) => Ok(first),
        None => {
            now.inspect(|first| drop(SEEN.with_borrow_mut(|seen| seen.insert(registration.to_owned(), first.clone()))))
        }
    }
}

/// Takes the token out of what the entry rests on, if the bug is on show.
pub(in crate::quilt) fn forget(token: &JoinToken, compares: &mut Vec<Compare>) {
    if OUTSIDE.get() {
        let guard = Compare::at(&token.key, token.revision);
        compares.retain(|compare| *compare != guard);
    }
}

/// Joiners through two replicas at once with one token: how many uses it has, and how many it admitted.
async fn admits(seed: u64) -> (u64, u64) {
    let plane = Plane::start().await;
    let other = plane.other();
    let (uses, joiners) = (1 + seed % 3, 4 + seed % 5);
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let token = plane.join_token(&id, u32::try_from(uses).expect("small")).await;
    let joining = (0..joiners).map(|number| {
        let through = if (seed >> (number % 3)) & 1 == number & 1 { &plane } else { &other };
        through.try_register(&id, &token, registration(&format!("n{number}")))
    });
    let answers = join_all(joining).await;
    let admitted = answers.iter().filter(|answer| answer.status == 201).count();
    (uses, u64::try_from(admitted).expect("few"))
}

/// Through two replicas at once a token admits as many as it has uses, and no more.
#[tokio::test]
async fn a_token_admits_as_many_as_it_has_uses_through_two_replicas() {
    for seed in 0..SEEDS {
        let (uses, admitted) = admits(seed).await;
        assert_eq!(admitted, uses, "seed {seed}");
    }
}

/// A token that is looked at before the entry, and not by it, admits more.
#[tokio::test]
async fn a_token_checked_outside_the_entry_is_convicted() {
    const NAME: &str = "token checked outside the entry";
    OUTSIDE.set(true);
    let mut convicted = None;
    for seed in 0..TRIES {
        let (uses, admitted) = admits(seed).await;
        if admitted > uses {
            convicted = Some((seed, uses, admitted));
            break;
        }
    }
    OUTSIDE.set(false);
    let convicted =
        convicted.map(|(seed, uses, admitted)| format!("seed {seed}: Token: one of {uses} uses admitted {admitted}"));
    tell("product", NAME, convicted.as_deref());
}

/// Says what became of an exhibit: which case convicted it, and of what.
#[track_caller]
fn tell(area: &str, name: &str, convicted: Option<&str>) {
    match convicted {
        Some(by) => println!("convicted  {area:<14} {name:<50} by {by}"),
        None => println!("SURVIVED   {area:<14} {name:<50}"),
    }
    assert!(convicted.is_some(), "{name} survived");
}
