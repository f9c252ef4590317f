//! [`Net`]: who listens where, which links are cut, and how long things take. Knows bytes, not what they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::call::Answer;
use super::conn::Conn;
use super::stream::PeerStream;
use crate::host::modelled::{Dice, Host, now_ns, sleep};

/// A dialling host asks again after this while nothing comes back.
const DIAL_AGAIN: Duration = Duration::from_millis(200);
/// What a lost segment costs: the sender's retransmission timeout.
const RETRANSMIT_US: (u64, u64) = (200_000, 400_000);

/// How messages fare that are not cut off.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One way, least and most, in microseconds.
    pub delay_us: (u64, u64),
    /// How many in a million take longer.
    pub spikes_ppm: u64,
    /// How long those take, least and most, in microseconds.
    pub spike_us: (u64, u64),
    /// How many in a million are lost, and sent again by the transport.
    pub losses_ppm: u64,
    /// How many in a million end their connection.
    pub resets_ppm: u64,
}

impl Weather {
    /// A quiet local network.
    #[must_use]
    pub const fn calm() -> Self {
        Self { delay_us: (100, 500), spikes_ppm: 0, spike_us: (0, 0), losses_ppm: 0, resets_ppm: 0 }
    }
}

/// What a host does with those who come to it.
pub(super) trait Accepts: Send + Sync {
    fn control(&self, stream: PeerStream) -> BoxFuture<'static, ()>;
    fn call(&self, request: http::Request<tonic::body::Body>) -> BoxFuture<'static, Answer>;
}

#[derive(Clone)]
pub(super) struct There {
    pub(super) host: Host,
    pub(super) accepts: Arc<dyn Accepts>,
}

enum Address {
    Open(There),
    /// The machine runs, nobody listens.
    Refusing,
    /// The machine is gone.
    Silent,
}

struct State {
    dice: Dice,
    weather: Weather,
    /// Directed.
    cuts: BTreeSet<(u64, u64)>,
    addresses: BTreeMap<String, Address>,
    conns: Vec<Weak<Conn>>,
}

/// The network between hosts.
pub struct Net {
    state: Mutex<State>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the modelled network")
    }
}

impl Net {
    /// A network on which all can reach all.
    #[must_use]
    pub fn new(dice: Dice, weather: Weather) -> Arc<Self> {
        let state = State { dice, weather, cuts: BTreeSet::new(), addresses: BTreeMap::new(), conns: Vec::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Changes how messages fare from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Cuts one direction.
    pub fn cut(&self, from: u64, to: u64) {
        self.state.lock().cuts.insert((from, to));
        self.stir(|_, _| {});
    }

    /// Opens one direction.
    pub fn heal(&self, from: u64, to: u64) {
        if self.state.lock().cuts.remove(&(from, to)) {
            self.stir(Conn::resume);
        }
    }

    /// Opens everything.
    pub fn heal_all(&self) {
        self.state.lock().cuts.clear();
        self.stir(Conn::resume);
    }

    /// How many directions are cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.state.lock().cuts.len()
    }

    /// The process on a host has ended; the machine says so to all who are connected.
    pub fn process_ended(&self, host: &Host) {
        self.leave(host, || Address::Refusing);
        self.stir(|conn, delay| conn.reset_if(delay, |end| end == host));
    }

    /// The machine is gone, and says nothing.
    pub fn machine_gone(&self, host: &Host) {
        self.leave(host, || Address::Silent);
        self.stir(|_, _| {});
    }

    /// A host was paused or goes on.
    pub fn looked_at(&self) {
        self.stir(|_, _| {});
    }

    fn leave(&self, host: &Host, then: impl Fn() -> Address) {
        let mut state = self.state.lock();
        for address in state.addresses.values_mut() {
            if matches!(address, Address::Open(there) if there.host == *host) {
                *address = then();
            }
        }
    }

    pub(super) fn listen(&self, address: String, host: Host, accepts: Arc<dyn Accepts>) {
        let id = host.id();
        self.state.lock().addresses.insert(address, Address::Open(There { host, accepts }));
        // Whatever was connected to the machine before it restarted is told so by the first segment it sends.
        self.stir(|conn, delay| conn.reset_if(delay, |end| end.id() == id && end.is_dead()));
    }

    pub(super) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.state.lock().cuts.contains(&(from, to))
    }

    /// How long the next message takes, and whether it ends its connection.
    pub(super) fn fare(&self) -> (Duration, bool) {
        let mut state = self.state.lock();
        let Weather { delay_us, spikes_ppm, spike_us, losses_ppm, resets_ppm } = state.weather;
        let dice = &mut state.dice;
        let mut us = dice.between(delay_us.0, delay_us.1);
        if dice.one_in_million(spikes_ppm) {
            us += dice.between(spike_us.0, spike_us.1);
        }
        if dice.one_in_million(losses_ppm) {
            us += dice.between(RETRANSMIT_US.0, RETRANSMIT_US.1);
        }
        (Duration::from_micros(us), dice.one_in_million(resets_ppm))
    }

    pub(super) fn add(&self, conn: &Arc<Conn>) {
        let mut state = self.state.lock();
        state.conns.retain(|conn| conn.strong_count() > 0);
        state.conns.push(Arc::downgrade(conn));
    }

    /// Something has changed that those who wait on connections have to look at.
    fn stir(&self, change: impl Fn(&Conn, u64)) {
        let conns: Vec<_> = self.state.lock().conns.iter().filter_map(Weak::upgrade).collect();
        for conn in conns {
            let (delay, _) = self.fare();
            change(&conn, now_ns() + u64::try_from(delay.as_nanos()).unwrap_or(0));
            conn.wake();
        }
    }

    /// Who listens at an address, after as long as it takes to learn that. Waits while nothing comes back.
    pub(super) async fn reach(&self, from: &Host, address: &str) -> io::Result<There> {
        loop {
            let round = self.fare().0 + self.fare().0;
            sleep(round).await;
            let found = match self.state.lock().addresses.get(address) {
                Some(Address::Open(there)) => Some(there.clone()),
                Some(Address::Silent) => None,
                Some(Address::Refusing) | None => return Err(io::ErrorKind::ConnectionRefused.into()),
            };
            if let Some(there) = found {
                let (here, other) = (from.id(), there.host.id());
                if !there.host.is_paused() && !self.is_cut(here, other) && !self.is_cut(other, here) {
                    return Ok(there);
                }
            }
            sleep(DIAL_AGAIN).await;
        }
    }
}
