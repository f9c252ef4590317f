//! Load: clients as they are met in the wild, through all replicas, whose every request and watch is recorded for the
//! [oracle](crate::oracle).
//!
//! The load is open: a step is due at its time whether or not those before it have ended, so that a cluster that stands still shows as
//! latency. It knows addresses and credentials, and nothing of processes and faults.

mod kubernetes;
mod meter;
mod quilt;
mod rollout;
mod session;
mod shape;
mod stage;
mod watcher;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;

pub use meter::{Ended, Latency};

use crate::cluster::Cluster;
use crate::history::History;
use crate::random::Random;
use meter::Meter;
use session::{As, Call, Session};
use stage::Stage;

/// Seconds of a load that are under way at once, and the fewest steps that are. What is due beyond is counted and left out: clients who
/// never let go of a cluster that has fallen behind keep it there.
const UNDER_WAY_SECONDS: f64 = 4.0;
const UNDER_WAY_MIN: f64 = 200.0;

/// How long a cluster may take to let a stage begin.
const BEGIN: Duration = Duration::from_secs(90);

/// One replica as a client reaches it: directly, or through a proxy of the client's own.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The replica's number.
    pub replica: u16,
    /// `https://…`, without a path.
    pub base: String,
}

/// Where clients go, and as whom.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The authority of the replicas' certificates, PEM.
    pub authority: String,
    /// The admin key.
    pub admin_token: String,
    /// The tenant's key.
    pub api_key: String,
    /// For each client the replicas as it reaches them; client n takes the n-th modulo their number.
    pub routes: Vec<Vec<Endpoint>>,
}

impl Targets {
    /// Every client goes to every replica directly.
    #[must_use]
    pub fn direct(cluster: &Cluster) -> Self {
        let replicas = cluster.manifest().replicas.iter();
        let endpoints = replicas.map(|replica| Endpoint { replica: replica.id, base: replica.api.clone() });
        Self {
            authority: cluster.authority().to_owned(),
            admin_token: cluster.manifest().admin_token.clone(),
            api_key: cluster.manifest().api_key.clone(),
            routes: vec![endpoints.collect()],
        }
    }

    fn route(&self, client: u16) -> &[Endpoint] {
        let place = usize::from(client).checked_rem(self.routes.len()).unwrap_or(0);
        self.routes.get(place).map_or(&[], Vec::as_slice)
    }
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `ConfigMaps`: compare-and-set, patches, lists, pages, watches with selectors.
    Kubernetes,
    /// Workloads under Idempotency-Keys, join tokens with more joiners than uses.
    Quilt,
    /// A Deployment that is scaled and rolled; wants a cluster with agents.
    Rollout,
}

/// How much of what.
#[derive(Debug, Clone)]
pub struct Mix {
    /// What clients do, and how many steps a second of each.
    pub parts: Vec<(Kind, f64)>,
    /// Clients.
    pub clients: u16,
    /// How long a client waits for an answer.
    pub patience: Duration,
}

impl Mix {
    fn of(parts: &[(Kind, f64)]) -> Self {
        Self { parts: parts.to_vec(), clients: 6, patience: Duration::from_secs(35) }
    }

    /// Kubernetes clients.
    #[must_use]
    pub fn kubernetes(rate: f64) -> Self {
        Self::of(&[(Kind::Kubernetes, rate)])
    }

    /// Quilt clients.
    #[must_use]
    pub fn quilt(rate: f64) -> Self {
        Self::of(&[(Kind::Quilt, rate)])
    }

    /// A Deployment that never rests.
    #[must_use]
    pub fn rollout(rate: f64) -> Self {
        Self::of(&[(Kind::Rollout, rate)])
    }

    /// All of it; seven of ten steps are Kubernetes'.
    #[must_use]
    pub fn full(rate: f64) -> Self {
        Self::of(&[(Kind::Kubernetes, rate * 0.7), (Kind::Quilt, rate * 0.28), (Kind::Rollout, rate * 0.02)])
    }

    /// A mix by its name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn named(name: &str, rate: f64) -> Result<Self> {
        match name {
            "kubernetes" => Ok(Self::kubernetes(rate)),
            "quilt" => Ok(Self::quilt(rate)),
            "rollout" => Ok(Self::rollout(rate)),
            "full" => Ok(Self::full(rate)),
            _ => bail!("no mix is called \"{name}\"; there are kubernetes, quilt, rollout and full"),
        }
    }
}

/// What all tasks of a load share.
#[derive(Debug)]
struct Shared {
    seed: u64,
    mix: Mix,
    sessions: Vec<Session>,
    meter: Arc<Meter>,
    stage: Mutex<Arc<Stage>>,
}

impl Shared {
    fn stage(&self) -> Arc<Stage> {
        Arc::clone(&self.stage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new part of the load, its places made and watched.
    async fn begin(&self, number: u64) -> Result<Arc<Stage>> {
        let stage = Arc::new(Stage::new(format!("{:x}-{number}", self.seed & 0xffff_ffff), self.seed));
        let mut random = Random::part(self.seed, number);
        let name = kubernetes::namespace(&stage);
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.prepare(&Call::new(As::Admin, Method::POST, "/api/v1/namespaces").body(&body), &[201, 409])
            .await
            .context("the namespace of a load")?;
        // The first collection of every stage, so that it has something to wait for at its end.
        kubernetes::watch(&stage, &self.sessions, &mut random);
        let kinds: Vec<Kind> = self.mix.parts.iter().map(|(kind, _)| *kind).collect();
        if kinds.contains(&Kind::Quilt) {
            let key = format!("cluster-{}", stage.tag);
            let body = quilt::cluster(&stage);
            let call = Call::new(As::Tenant, Method::POST, "/api/clusters").body(&body);
            let made = self.prepare(&call.header("idempotency-key", &key), &[201]).await.context("a Quilt cluster")?;
            quilt::watch(&stage, &self.sessions, &made, &mut random);
            quilt::begin(&stage, &self.sessions[0], &mut random).await;
        }
        if kinds.contains(&Kind::Rollout) {
            rollout::watch(&stage, &self.sessions, &mut random);
            rollout::begin(&stage, &self.sessions[0], &mut random).await;
        }
        Ok(stage)
    }

    /// Asks every replica in turn until one gives an answer that will do.
    async fn prepare(&self, call: &Call<'_>, wanted: &[u16]) -> Result<serde_json::Value> {
        let started = Instant::now();
        let mut told = String::new();
        for place in 0.. {
            if started.elapsed() > BEGIN {
                break;
            }
            let sending = self.sessions[0].request(place, call).timeout(Duration::from_secs(15));
            match sending.send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let body = response.text().await.unwrap_or_default();
                    if wanted.contains(&status) {
                        return Ok(serde_json::from_str(&body).unwrap_or_default());
                    }
                    told = format!("{status}: {body}");
                }
                Err(error) => told = format!("{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("not within {BEGIN:?}: {} {}: {told}", call.method, call.path)
    }

    /// Begins steps as they are due.
    async fn drive(self: Arc<Self>, kind: Kind, rate: f64, part: u64) {
        let started = Instant::now();
        let between = Duration::from_secs_f64(1.0 / rate.max(0.001));
        let mut random = Random::part(self.seed, part);
        // A number of steps, far below what a usize holds.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let most =
            (self.mix.parts.iter().map(|(_, rate)| rate).sum::<f64>() * UNDER_WAY_SECONDS).max(UNDER_WAY_MIN) as usize;
        for number in 0_u32.. {
            let due = started + between * number;
            tokio::time::sleep_until(due.into()).await;
            if self.meter.under_way() >= most {
                self.meter.shed();
                continue;
            }
            let name = (u64::from(number) << 8) | part;
            self.meter.begin(name, due);
            let session = random.one(&self.sessions).clone();
            let random = Random::new(random.draw());
            let (shared, stage) = (Arc::clone(&self), self.stage());
            let open = stage.step();
            tokio::spawn(async move {
                match kind {
                    Kind::Kubernetes => kubernetes::step(&stage, &session, random).await,
                    Kind::Quilt => quilt::step(&stage, &session, random).await,
                    Kind::Rollout => rollout::step(&stage, &session, random).await,
                }
                shared.meter.end(name);
                drop(open);
            });
        }
    }

    async fn close(&self, stage: Arc<Stage>) -> History {
        stage.quiet(self.mix.patience).await;
        for session in self.sessions.iter().take(1) {
            kubernetes::finish(&stage, session, self.seed).await;
        }
        stage.close(&self.sessions).await
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    drivers: Vec<JoinHandle<()>>,
    stages: AtomicU64,
}

/// Starts clients; they work until [`Load::stop`].
///
/// # Errors
/// When a client cannot be made, or the cluster does not let the load begin.
pub async fn start(targets: Targets, mix: Mix, seed: u64) -> Result<Load> {
    let meter = Arc::new(Meter::default());
    let sessions =
        (0..mix.clients.max(1)).map(|number| Session::new(&targets, number, mix.patience, Arc::clone(&meter)));
    let sessions = sessions.collect::<Result<Vec<_>>>()?;
    let stage = Mutex::new(Arc::new(Stage::new(String::new(), seed)));
    let shared = Arc::new(Shared { seed, mix, sessions, meter, stage });
    let first = shared.begin(0).await?;
    *shared.stage.lock().unwrap_or_else(PoisonError::into_inner) = first;
    let parts = shared.mix.parts.clone();
    let drivers =
        (1..).zip(parts).map(|(part, (kind, rate))| tokio::spawn(Arc::clone(&shared).drive(kind, rate, part)));
    Ok(Load { drivers: drivers.collect(), shared, stages: AtomicU64::new(1) })
}

impl Load {
    /// Requests acknowledged a second, over the last two.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.shared.meter.rate()
    }

    /// How long steps take, over the last two seconds, from when they were due.
    #[must_use]
    pub fn latency(&self) -> Latency {
        self.shared.meter.latency()
    }

    /// How many requests ended how, since the start.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.shared.meter.ended()
    }

    /// An operator began a new epoch, not before this moment, with this revision.
    pub fn epoch(&self, begun: Instant, revision: u64) {
        self.shared.stage().recorder.epoch(begun, revision);
    }

    /// Requests recorded in the present part.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.shared.stage().recorder.begun()
    }

    /// Ends the present part and begins another, without a break in the load. A long run is judged part by part, and its memory
    /// does not grow.
    ///
    /// # Errors
    /// When the cluster does not let another part begin; the present one then goes on.
    pub async fn cut(&self) -> Result<History> {
        let number = self.stages.fetch_add(1, Ordering::Relaxed);
        let next = self.shared.begin(number).await?;
        let last = std::mem::replace(&mut *self.shared.stage.lock().unwrap_or_else(PoisonError::into_inner), next);
        let history = self.shared.close(Arc::clone(&last)).await;
        let mut left = vec![(As::Admin, format!("/api/v1/namespaces/{}", kubernetes::namespace(&last)))];
        left.extend(quilt::path(&last).map(|path| (As::Tenant, path)));
        last.clear(&self.shared.sessions[0], &left).await;
        Ok(history)
    }

    /// Ends the load: what is under way is waited for, everything is listed once more through every replica, and every watch is
    /// given time to come to the end.
    pub async fn stop(mut self) -> History {
        for driver in std::mem::take(&mut self.drivers) {
            driver.abort();
            let _aborted = driver.await;
        }
        let stage = self.shared.stage();
        self.shared.close(stage).await
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for driver in &self.drivers {
            driver.abort();
        }
    }
}
