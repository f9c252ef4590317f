//! Faults: what breaks, when, and for how long. Everything is drawn from the seed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use quilt_raft_simulated::model::{Dice, sleep};

use crate::disk::{End, Habit};
use crate::node::Node;
use crate::plan::Plan;
use crate::world::Scene;

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// A process or a machine ends, for long or not.
    Crash,
    /// All of them do.
    CrashAll,
    /// Some directions to and from one replica are cut.
    Cut,
    /// The replicas are parted.
    Part,
    /// A leader hears nothing any more, a moment later is not heard either, and hears again from one after the other.
    Deafen,
    /// A host stands still.
    Pause,
    /// A disk is slow.
    Stall,
    /// A disk's log is slow, its state is flushed all the same, and the power goes.
    Outrun,
    /// A disk fails a sync.
    FailSync,
    /// The network is bad everywhere.
    Storm,
    /// Whoever votes next loses power.
    Ambush,
    /// A wall clock jumps.
    Clock,
    /// A process starts again.
    Restart,
}

impl Strike {
    /// One in a hundred draws each.
    const fn of(drawn: u64) -> Self {
        match drawn {
            0..22 => Self::Crash,
            22..27 => Self::CrashAll,
            27..40 => Self::Cut,
            40..46 => Self::Part,
            46..50 => Self::Deafen,
            50..60 => Self::Pause,
            60..69 => Self::Stall,
            69..72 => Self::Outrun,
            72..77 => Self::FailSync,
            77..85 => Self::Storm,
            85..88 => Self::Ambush,
            88..93 => Self::Clock,
            _ => Self::Restart,
        }
    }
}

pub(crate) struct Faults {
    pub(crate) scene: Arc<Scene>,
    pub(crate) dice: Dice,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Faults {
    pub(crate) async fn run(mut self) {
        while self.scene.is_breaking() {
            let pause = Plan::around(&mut self.dice, self.scene.plan.fault_every_ms);
            sleep(pause).await;
            if self.scene.is_breaking() {
                self.strike().await;
            }
        }
    }

    fn any(&mut self) -> Option<Arc<Node>> {
        let nodes = self.scene.nodes();
        self.dice.pick(&nodes).cloned()
    }

    /// How long a fault lasts: in a world that goes on for long, one in four is long too.
    fn lasts(&mut self, least_ms: u64, most_ms: u64) -> u64 {
        let times = self.scene.plan.pace.long_fault();
        let most_ms = if times > 1 && self.dice.percent(25) { most_ms * times } else { most_ms };
        self.dice.between(least_ms, most_ms)
    }

    /// The one that leads, as often as any.
    fn victim(&mut self) -> Option<Arc<Node>> {
        if self.dice.percent(50)
            && let Some(leader) = self.scene.leader()
        {
            return Some(leader);
        }
        self.any()
    }

    async fn strike(&mut self) {
        let Some(victim) = self.victim() else { return };
        self.scene.ledger.count(|tally| tally.faults += 1);
        let end = if self.dice.percent(60) { End::Power } else { End::Process };
        let drawn = Strike::of(self.dice.below(100));
        match self.scene.only.unwrap_or(drawn) {
            Strike::Crash => {
                victim.crash(end, &self.scene);
                // A tenth to a third of all outages are long.
                let down = if self.dice.percent(20) { self.lasts(5_000, 40_000) } else { self.dice.between(20, 3_000) };
                self.restart_later(victim, down);
            }
            Strike::CrashAll => {
                let apart = self.dice.between(0, 30);
                for node in self.scene.nodes() {
                    sleep(ms(self.dice.between(0, apart))).await;
                    node.crash(end, &self.scene);
                }
                for node in self.scene.nodes() {
                    let down = self.dice.between(50, 2_000);
                    self.restart_later(node, down);
                }
            }
            Strike::Cut => self.cut(&victim),
            Strike::Part => self.part(),
            Strike::Deafen => self.deafen().await,
            Strike::Pause => self.pause(&victim),
            Strike::Stall => self.stall(&victim),
            Strike::Outrun => self.outrun(&victim).await,
            Strike::FailSync => {
                let habit = Habit { sync_us: self.scene.plan.sync_us, fail_next: true };
                self.scene.ledger.note(&format!("fail a sync of {}", victim.id));
                victim.disk.set_habit(habit);
            }
            Strike::Storm => self.storm(),
            Strike::Ambush => self.ambush(&victim),
            Strike::Clock => {
                if let Some(host) = victim.host() {
                    let day = 86_400_000;
                    let offset = i64::try_from(self.dice.between(0, 2 * day)).unwrap_or(0) - day as i64;
                    self.scene.ledger.note(&format!("wall clock of {} by {offset} ms", victim.id));
                    host.set_wall_offset_ms(offset);
                }
            }
            Strike::Restart => {
                // So quick that peers hardly notice.
                victim.crash(End::Process, &self.scene);
                let down = self.dice.between(1, 50);
                self.restart_later(victim, down);
            }
        }
    }

    /// Whoever votes next for another loses power right behind it, and is back before the election is over.
    fn ambush(&mut self, victim: &Arc<Node>) {
        self.scene.ledger.note(&format!("ambush, crash {}", victim.id));
        let mut votes = self.scene.ledger.votes();
        let (behind_us, down_ms) = (self.dice.between(0, 3_000), self.dice.between(1, 30));
        let scene = Arc::clone(&self.scene);
        drop(self.scene.spawn(async move {
            let voted = {
                let (voted, late) = (std::pin::pin!(votes.changed()), std::pin::pin!(sleep(ms(30_000))));
                matches!(select(voted, late).await, Either::Left((Ok(()), _)))
            };
            if !voted {
                return;
            }
            let voter = votes.borrow().1;
            sleep(Duration::from_micros(behind_us)).await;
            let Some(node) = scene.nodes().into_iter().find(|node| node.id == voter) else { return };
            if scene.is_breaking() {
                node.crash(End::Power, &scene);
                sleep(ms(down_ms)).await;
                node.start(&scene);
            }
        }));
        victim.crash(End::Process, &self.scene);
        let down = self.dice.between(20, 2_000);
        self.restart_later(Arc::clone(victim), down);
    }

    fn restart_later(&mut self, node: Arc<Node>, down_ms: u64) {
        let scene = Arc::clone(&self.scene);
        drop(self.scene.spawn(async move {
            sleep(ms(down_ms)).await;
            node.start(&scene);
        }));
    }

    fn later(&mut self, after_ms: u64, what: impl FnOnce(&Scene) + Send + 'static) {
        let scene = Arc::clone(&self.scene);
        drop(self.scene.spawn(async move {
            sleep(ms(after_ms)).await;
            what(&scene);
        }));
    }

    /// Some directions to and from one replica.
    fn cut(&mut self, victim: &Node) {
        let mut cut = Vec::new();
        for other in self.scene.nodes().iter().filter(|other| other.id != victim.id) {
            if self.dice.percent(70) {
                cut.push((victim.id, other.id));
            }
            if self.dice.percent(70) {
                cut.push((other.id, victim.id));
            }
        }
        self.cut_all(cut);
    }

    /// A partition.
    fn part(&mut self) {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for node in self.scene.nodes() {
            if self.dice.percent(50) { one.push(node.id) } else { other.push(node.id) }
        }
        let both = one.iter().flat_map(|here| other.iter().flat_map(|there| [(*here, *there), (*there, *here)]));
        let cut = both.collect();
        self.cut_all(cut);
    }

    /// A leader hears nothing any more, and a moment later is not heard either, until others have elected another one. What
    /// its peers had said to it comes then, from one peer after the other, the new leader the last one.
    async fn deafen(&mut self) {
        let Some(leader) = self.scene.leader() else { return };
        let id = leader.id;
        let mut peers: Vec<_> = self.scene.nodes().iter().map(|node| node.id).filter(|peer| *peer != id).collect();
        self.scene.ledger.note(&format!("deafen {id}"));
        for peer in &peers {
            self.scene.net.cut(*peer, id);
        }
        sleep(ms(self.dice.between(5, 300))).await;
        for peer in &peers {
            self.scene.net.cut(id, *peer);
        }
        // Less than it takes to give up a connection.
        let lasts = self.dice.between(1_000, 3_000);
        let apart = self.dice.between(1, 100);
        let first = usize::try_from(self.dice.below(1 + peers.len() as u64)).unwrap_or(0);
        let scene = Arc::clone(&self.scene);
        drop(self.scene.spawn(async move {
            sleep(ms(lasts)).await;
            let leads = scene.nodes().into_iter().find(|node| node.id != id && node.leads()).map(|node| node.id);
            let middle = first.min(peers.len());
            peers.rotate_left(middle);
            peers.sort_by_key(|peer| Some(*peer) == leads);
            scene.ledger.note(&format!("{id} hears {peers:?}"));
            for peer in &peers {
                scene.net.heal(*peer, id);
                sleep(ms(apart)).await;
            }
            for peer in &peers {
                scene.net.heal(id, *peer);
            }
        }));
    }

    /// Entries are applied that others hold, and the state is ahead of the own log when the power goes.
    async fn outrun(&mut self, victim: &Arc<Node>) {
        let sync_us = self.dice.between(100_000, 1_000_000);
        self.scene.ledger.note(&format!("outrun the log of {}: {sync_us} us", victim.id));
        victim.disk.set_habit(Habit { sync_us: (sync_us, sync_us), fail_next: false });
        sleep(ms(self.dice.between(20, 900))).await;
        victim.disk.flush_state();
        victim.crash(End::Power, &self.scene);
        victim.disk.set_habit(Habit { sync_us: self.scene.plan.sync_us, fail_next: false });
        let down = self.dice.between(20, 3_000);
        self.restart_later(Arc::clone(victim), down);
    }

    fn cut_all(&mut self, cut: Vec<(u64, u64)>) {
        self.scene.ledger.note(&format!("cut {cut:?}"));
        for (from, to) in &cut {
            self.scene.net.cut(*from, *to);
        }
        let lasts = self.lasts(100, 10_000);
        self.later(lasts, move |scene| {
            scene.ledger.note(&format!("heal {cut:?}"));
            for (from, to) in cut {
                scene.net.heal(from, to);
            }
        });
    }

    fn pause(&mut self, victim: &Node) {
        let Some(host) = victim.host() else { return };
        self.scene.ledger.note(&format!("pause {}", victim.id));
        host.pause();
        self.scene.net.looked_at();
        let lasts = self.lasts(50, 6_000);
        let id = victim.id;
        self.later(lasts, move |scene| {
            scene.ledger.note(&format!("resume {id}"));
            host.resume();
            scene.net.looked_at();
        });
    }

    fn stall(&mut self, victim: &Arc<Node>) {
        let least = self.dice.between(10_000, 300_000);
        let sync_us = (least, least * self.dice.between(1, 8));
        self.scene.ledger.note(&format!("slow disk of {}: {sync_us:?} us", victim.id));
        victim.disk.set_habit(Habit { sync_us, fail_next: false });
        let victim = Arc::clone(victim);
        let lasts = self.lasts(500, 10_000);
        self.later(lasts, move |scene| {
            if scene.is_breaking() {
                victim.disk.set_habit(Habit { sync_us: scene.plan.sync_us, fail_next: false });
            }
        });
    }

    /// Bad weather everywhere.
    fn storm(&mut self) {
        let mut weather = self.scene.plan.weather;
        weather.spikes_ppm = self.dice.between(5_000, 100_000);
        weather.spike_us = (50_000, 800_000);
        weather.losses_ppm = self.dice.between(0, 50_000);
        weather.resets_ppm = self.dice.between(0, 5_000);
        self.scene.ledger.note(&format!("storm {weather:?}"));
        self.scene.net.set_weather(weather);
        let lasts = self.lasts(500, 8_000);
        self.later(lasts, |scene| {
            // What was healed in the meantime stays so.
            if scene.is_breaking() {
                scene.net.set_weather(scene.plan.weather);
            }
        });
    }
}

/// Starts replicas again whose disk has failed, as whoever runs them would.
pub(crate) async fn supervise(scene: Arc<Scene>) {
    while scene.is_watching() {
        sleep(ms(250)).await;
        for node in scene.nodes() {
            if node.has_failed() {
                node.crash(End::Process, &scene);
                sleep(ms(100)).await;
                node.start(&scene);
            }
        }
    }
}
