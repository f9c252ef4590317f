//! [`Runtime`]: openraft's simulated runtime, seen from a host: tasks belong to it, and time is what its clock shows.

use std::future::Future;
use std::io;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant as _};
use openraft_rt_sim::{Elapsed, SimRuntime, SimSleep, SimTimeout, SimWatch};

use super::host::{Ended, Host, JoinHandle};
use super::instant::Moment;
use super::world;

/// Longest a piece of blocking work takes.
const BLOCKING_US_MAX: u64 = 2_000;

/// The runtime of everything under simulation.
#[derive(Debug)]
pub(crate) struct Runtime {
    runtime: SimRuntime,
}

/// A time by the current host's clock, as it really takes.
fn true_span(local: Duration) -> Duration {
    match Host::current() {
        Some(host) => {
            let local = u64::try_from(local.as_nanos()).unwrap_or(u64::MAX);
            Duration::from_nanos(host.true_span_ns(local))
        }
        None => local,
    }
}

/// Longer than any simulation.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

fn sleep_for(local: Duration) -> SimSleep {
    SimRuntime::sleep(true_span(local).min(FOR_EVER))
}

impl AsyncRuntime for Runtime {
    type JoinError = Ended;
    type JoinHandle<T: Send + 'static> = JoinHandle<T>;
    type Sleep = SimSleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = SimTimeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        // The simulation's own tasks have no host and outlive all.
        Host::current().unwrap_or_else(world::ground).spawn(future)
    }

    fn sleep(duration: Duration) -> SimSleep {
        sleep_for(duration)
    }

    fn sleep_until(deadline: Moment) -> SimSleep {
        sleep_for(deadline - Moment::now())
    }

    fn timeout<R, F>(duration: Duration, future: F) -> SimTimeout<F>
    where
        F: Future<Output = R> + Send,
    {
        SimRuntime::timeout(true_span(duration).min(FOR_EVER), future)
    }

    fn timeout_at<R, F>(deadline: Moment, future: F) -> SimTimeout<F>
    where
        F: Future<Output = R> + Send,
    {
        Self::timeout(deadline - Moment::now(), future)
    }

    fn is_panic(_: &Ended) -> bool {
        false // a panic is a violation, and known to the world already
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = SimWatch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn new(_threads: usize) -> Self {
        Self { runtime: SimRuntime::with_seed(0) }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.runtime.block_on(future)
    }

    /// Other threads take time; here their work is done at the end of it.
    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let pause = Duration::from_micros(world::draw(|dice| dice.between(1, BLOCKING_US_MAX)));
        let working = Self::spawn(async move {
            SimRuntime::sleep(pause).await;
            work()
        });
        async move { working.await.map_err(io::Error::other) }
    }
}
