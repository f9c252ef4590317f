//! [`Soak`]: one control plane for hours, under faults of all scenarios that follow each other by chance.

use std::time::Duration;

use super::scenario::{Phase, Scenario, Work};
use crate::oracle::Promise::{G6, G7, G11, G13, G15, G16, G17};
use crate::random::Random;
use crate::rig::Rig;

/// Of so many faults one may have had nothing to take effect on.
const IDLE: usize = 5;

/// What a soak is called, and what is judged in it.
pub const SOAK: Scenario = Scenario {
    name: "soak",
    shows: "One control plane lives through faults by chance, one behind the other.",
    work: Work::All,
    phases: &[],
    promises: &[G6, G7, G11, G13, G15, G16, G17],
    arguments: &[],
};

/// Faults for one control plane.
#[derive(Debug)]
pub struct Soak {
    /// No other phase is begun after this.
    pub lasts: Duration,
    phases: Vec<&'static Phase>,
}

impl Soak {
    /// Phases of these scenarios, of all that need nothing of their own of the control plane; none when there is no such one.
    #[must_use]
    pub fn of(chosen: &[&'static Scenario], lasts: Duration) -> Option<Self> {
        let plain = chosen.iter().filter(|scenario| scenario.arguments.is_empty() && !scenario.needs_previous());
        let phases: Vec<&Phase> = plain
            .flat_map(|scenario| scenario.phases)
            .filter(|phase| !phase.faults.is_empty() && !phase.renews())
            .collect();
        (!phases.is_empty()).then_some(Self { lasts, phases })
    }

    /// The next phase. Numbers of replicas are given once, and the harness has addresses for so many only.
    pub(super) fn next(&self, rig: &Rig, random: &mut Random) -> &'static Phase {
        let fits = |phase: &&&Phase| rig.has_numbers_left() || !phase.faults.iter().any(|fault| fault.may_replace());
        let fitting: Vec<&'static Phase> = self.phases.iter().filter(fits).copied().collect();
        let all: &[&'static Phase] = if fitting.is_empty() { &self.phases } else { &fitting };
        let &phase: &&'static Phase = random.one(all);
        phase
    }
}

/// A soak in which many faults took no effect proves little.
pub(super) fn doubts(faults: usize, idle: &[String]) -> Vec<String> {
    match (faults, idle.first()) {
        (0, _) => vec!["no fault was begun".into()],
        (_, Some(first)) if idle.len() * IDLE > faults => {
            vec![format!("{} of {faults} faults took no effect, as: {first}", idle.len())]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::scenario::SCENARIOS;
    use crate::fault::Fault;

    /// A soak takes what every scenario takes but those that start the control plane in another way, and is void when most of its faults
    /// had no effect.
    #[test]
    fn a_soak_is_of_all_faults() {
        let all: Vec<&Scenario> = SCENARIOS.iter().collect();
        let soak = Soak::of(&all, Duration::ZERO).expect("there are phases");
        assert!(soak.phases.len() >= 50, "{}", soak.phases.len());
        assert!(!soak.phases.iter().any(|phase| phase.faults.contains(&Fault::Absence)));
        assert!(Soak::of(&[&SCENARIOS[0]], Duration::ZERO).is_none(), "calm has none");
        assert!(doubts(10, &["x".into()]).is_empty());
        assert_eq!(doubts(10, &vec!["x".into(); 3]).len(), 1);
        assert_eq!(doubts(0, &[]).len(), 1);
    }
}
