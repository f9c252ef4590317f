//! What must always hold, one rule a file. Each sees everything that happens and keeps what it needs of it.

mod acknowledged;
mod bindings;
mod cluster_time;
mod committed_immutable;
mod committed_on_quorum;
mod covered;
mod election_safety;
mod exactly_once;
mod facts;
mod history;
mod leader_completeness;
mod log_matching;
mod logs;
mod monotone;
mod reads;
mod refusals;
mod state_hash;
mod state_machine_safety;
mod subnets;
mod tokens;
mod watches;
mod window;

pub(crate) use facts::Facts;

use crate::sight::Sight;

/// A rule.
pub(crate) trait Invariant: Send {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Something happened; an error says how it breaks the rule.
    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String>;

    /// Nothing happens any more.
    fn close(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// All of them. Those of the log come first: what breaks there shows later everywhere.
pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(election_safety::ElectionSafety::default()),
        Box::new(log_matching::LogMatching::default()),
        Box::new(leader_completeness::LeaderCompleteness::default()),
        Box::new(committed_on_quorum::CommittedOnQuorum::default()),
        Box::new(committed_immutable::CommittedImmutable::default()),
        Box::new(monotone::Monotone::default()),
        Box::new(covered::Covered),
        Box::new(state_machine_safety::StateMachineSafety),
        Box::new(state_hash::OneHash::default()),
        Box::new(exactly_once::ExactlyOnce::default()),
        Box::new(acknowledged::Acknowledged::default()),
        Box::new(reads::LinearizableReads::default()),
        Box::new(refusals::Refusals::default()),
        Box::new(watches::Watches),
        Box::new(window::Window::default()),
        Box::new(cluster_time::ClusterTime::default()),
        Box::new(bindings::Bindings::default()),
        Box::new(tokens::Tokens::default()),
        Box::new(subnets::Subnets::default()),
    ]
}

/// The names of all rules.
#[must_use]
pub fn names() -> Vec<&'static str> {
    all().iter().map(|invariant| invariant.name()).collect()
}
