//! [`Debt`]: what the product owes while a fault is begun or ended: to lead, to stop when it is asked, to serve again, to finish what an
//! operator began. Not done in time it is a [`Failure`], a broken promise; a fault that the harness cannot bring about proves nothing, and
//! what the host gave no processors to do is nobody's failure.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::oracle::{Promise, Violation};
use crate::rig::Rig;
use crate::starvation::{Canary, Withheld};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);
/// What fails sooner does not fail for want of time.
const SOON: Duration = Duration::from_secs(1);

/// The product did not do what it promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {told}")]
pub struct Failure {
    promise: Promise,
    check: &'static str,
    told: String,
}

impl Failure {
    pub(super) fn new(promise: Promise, check: &'static str, told: impl Into<String>) -> Self {
        Self { promise, check, told: told.into() }
    }
}

/// Whose failure an error of a fault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// The product's: a broken promise.
    Product(Violation),
    /// The harness's or the host's: nothing is proved.
    Harness(String),
}

impl Blame {
    /// Of what could not be done, as `kill the leader could not be begun`.
    #[must_use]
    pub fn of(what: &str, error: &anyhow::Error) -> Self {
        let told = format!("{what}: {error:#}");
        match error.downcast_ref::<Failure>() {
            Some(failure) => Self::Product(Violation::new(failure.promise, failure.check, told)),
            None => Self::Harness(told),
        }
    }
}

/// What is owed, and until when.
#[derive(Debug)]
pub(super) struct Debt {
    promise: Promise,
    check: &'static str,
    limit: Duration,
    since: Instant,
    canary: Canary,
    pids: Vec<u32>,
}

impl Debt {
    /// From now on the replicas owe this, within `limit` of what the host does not withhold from them.
    pub(super) fn of(rig: &Rig, limit: Duration, promise: Promise, check: &'static str) -> Result<Self> {
        Self::at(rig.directory(), rig.pids(), limit, promise, check)
    }

    fn at(directory: &Path, pids: Vec<u32>, limit: Duration, promise: Promise, check: &'static str) -> Result<Self> {
        let canary = Canary::start(directory, &pids)?;
        Ok(Self { promise, check, limit, since: Instant::now(), canary, pids })
    }

    /// The longest that anybody waits for it on any host.
    pub(super) const fn longest(limit: Duration) -> Duration {
        limit.saturating_mul(Withheld::PATIENT_LONGEST)
    }

    /// The error of what is not done yet, once its time is over.
    pub(super) fn over(&self, why: &str) -> Option<anyhow::Error> {
        let (elapsed, withheld) = (self.since.elapsed(), self.canary.withheld(&self.pids));
        (withheld.at_last(elapsed) > self.limit).then(|| self.late(elapsed, withheld, why))
    }

    fn late(&self, elapsed: Duration, withheld: Withheld, why: &str) -> anyhow::Error {
        let limit = self.limit;
        let told =
            format!("not within {limit:?}, and not after {elapsed:?}, of which the host withheld {withheld}: {why}");
        // A host that had next to nothing for the replicas explains even that.
        self.error(withheld.soon(elapsed) <= limit, told)
    }

    fn failed(&self, elapsed: Duration, withheld: Withheld, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Failure>() || error.is::<std::io::Error>() {
            return error;
        }
        let told = format!("after {elapsed:?}, of which the host withheld {withheld}: {error:#}");
        self.error(elapsed > SOON && withheld.starved(elapsed), told)
    }

    fn error(&self, excused: bool, told: String) -> anyhow::Error {
        match excused {
            true => anyhow!("the host was too busy to tell whether {}: {told}", self.check),
            false => Failure::new(self.promise, self.check, told).into(),
        }
    }

    /// Looks until it is done.
    pub(super) async fn seen<T, F>(self, mut look: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        loop {
            match look().await {
                Ok(found) => return Ok(found),
                Err(reason) => match self.over(&format!("{reason:#}")) {
                    Some(error) => return Err(error),
                    None => tokio::time::sleep(LOOK).await,
                },
            }
        }
    }

    /// Waits until it is done, or refused.
    pub(super) async fn paid<T>(self, doing: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => {
                    return done.map_err(|error| {
                        self.failed(self.since.elapsed(), self.canary.withheld(&self.pids), error)
                    });
                }
                () = tokio::time::sleep(LOOK) => {
                    if let Some(error) = self.over("it is still waited for") {
                        return Err(error);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn debt(directory: &Path) -> Debt {
        Debt::at(directory, Vec::new(), Duration::from_secs(2), Promise::G20, "somebody leads").expect("it begins")
    }

    fn is_broken(error: &anyhow::Error) -> bool {
        matches!(Blame::of("kill the leader could not be begun", error), Blame::Product(_))
    }

    const IDLE: Withheld = Withheld { ran: Duration::from_secs(1), waited: Duration::ZERO, disk: Duration::ZERO };
    const BUSY: Withheld =
        Withheld { ran: Duration::from_secs(1), waited: Duration::from_secs(40), disk: Duration::ZERO };

    /// What is not done in time is the product's failure, unless the host had next to no processors for it; the same for what fails after
    /// a while. What is refused at once is refused on any host, and files that cannot be written are nobody's promise.
    #[test]
    fn time_that_the_host_took_excuses() {
        let directory = tempfile::tempdir().expect("a directory");
        let debt = debt(directory.path());
        let seconds = Duration::from_secs;
        assert!(is_broken(&debt.late(seconds(3), IDLE, "nobody leads")));
        assert!(!is_broken(&debt.late(seconds(9), BUSY, "nobody leads")));
        assert!(is_broken(&debt.late(seconds(300), BUSY, "nobody leads")));
        assert!(is_broken(&debt.failed(seconds(3), IDLE, anyhow!("500"))));
        assert!(!is_broken(&debt.failed(seconds(3), BUSY, anyhow!("500"))));
        assert!(is_broken(&debt.failed(Duration::ZERO, BUSY, anyhow!("500"))));
        let file = anyhow::Error::from(std::io::Error::other("no space")).context("a file");
        assert!(!is_broken(&debt.failed(Duration::ZERO, IDLE, file)));
    }

    /// A failure stays one however many words are put before it, and names its promise.
    #[test]
    fn a_failure_is_told_by_its_promise() {
        let failed: Result<()> = Err(Failure::new(Promise::G11, "a change is finished", "503").into());
        let error = failed.context("the way back").expect_err("it failed");
        let Blame::Product(violation) = Blame::of("x", &error) else { panic!("it is the product's") };
        assert_eq!(violation.promise, Promise::G11);
        assert_eq!(violation.to_string(), "G11 a change is finished: x: the way back: a change is finished: 503");
        assert!(matches!(Blame::of("x", &anyhow!("no layer")), Blame::Harness(told) if told == "x: no layer"));
    }

    /// What is seen in time is no debt, and neither is what is done in time.
    #[tokio::test]
    async fn what_is_done_is_done() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut looks = 0;
        let seen = debt(directory.path()).seen(|| {
            looks += 1;
            let found = if looks > 2 { Ok(looks) } else { Err(anyhow!("not yet")) };
            async move { found }
        });
        assert_eq!(seen.await.expect("seen"), 3);
        assert_eq!(debt(directory.path()).paid(async { Ok(7) }).await.expect("done"), 7);
        let refused = debt(directory.path()).paid(async { Err::<(), _>(anyhow!("409")) }).await;
        assert!(is_broken(&refused.expect_err("refused")));
    }

    /// What never comes is given up: with the promise that it breaks, or excused by a host that had nothing for it.
    #[tokio::test]
    async fn what_never_comes_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let debt = Debt { limit: Duration::from_millis(50), ..debt(directory.path()) };
        let error = debt.paid(std::future::pending::<Result<()>>()).await.expect_err("it never comes");
        assert!(format!("{error:#}").contains("somebody leads"), "{error:#}");
    }
}
