//! [`Stage`]: one closed part of a load, with a history of its own: names that nobody else uses, watches of all of them, and an end at
//! which everything is looked at once more. A long run is a row of stages, so that its memory does not grow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::session::{As, Call, Session};
use super::shape::Shape;
use super::watcher::{Plan, Watcher, listed};
use crate::history::{
    Collection, Freshness, History, Outcome, Page, Reader, Recorder, Recording, Request, Revision, Selector, Writers,
};
use crate::random::Random;

/// How long watches may take to come to the end when the writing has stopped.
const CATCH_UP: Duration = Duration::from_secs(45);

/// How long a replica may take to let go of what a part has left.
const CLEAR: Duration = Duration::from_secs(10);

/// How long lists may wait for a bookmark behind them.
const COVER: Duration = Duration::from_secs(12);

/// A list's revision, and of each object its name, its group and its revision.
type Shown = (Revision, Vec<(String, String, Revision)>);

/// Pause between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// A collection of a stage.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) id: u16,
    pub(super) path: String,
    pub(super) shape: Shape,
    pub(super) who: As,
}

#[derive(Debug)]
struct Following {
    plan: Plan,
    recording: Recording,
    position: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// One part of a load.
#[derive(Debug)]
pub(super) struct Stage {
    /// Makes its names its own.
    pub(super) tag: String,
    pub(super) recorder: Recorder,
    values: AtomicU64,
    under_way: AtomicUsize,
    /// The latest revision a client has seen of an object, or an id, by its name.
    known: Mutex<BTreeMap<String, String>>,
    collections: Mutex<Vec<Watched>>,
    following: Mutex<Vec<Following>>,
    hurry: watch::Sender<bool>,
}

/// Keeps a stage open while a step of it runs.
#[derive(Debug)]
pub(super) struct Step(Arc<Stage>);

impl Drop for Step {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stage {
    pub(super) fn new(tag: String, seed: u64) -> Self {
        Self {
            tag,
            recorder: Recorder::new(seed),
            values: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            known: Mutex::default(),
            collections: Mutex::default(),
            following: Mutex::default(),
            hurry: watch::Sender::new(false),
        }
    }

    pub(super) fn step(self: &Arc<Self>) -> Step {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Step(Arc::clone(self))
    }

    /// A value that nobody has written.
    pub(super) fn value(&self) -> String {
        format!("{}-v{}", self.tag, self.values.fetch_add(1, Ordering::Relaxed))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn learn(&self, name: &str, what: String) {
        self.known().insert(name.to_owned(), what);
    }

    pub(super) fn forget(&self, name: &str) {
        self.known().remove(name);
    }

    pub(super) fn recall(&self, name: &str) -> Option<String> {
        self.known().get(name).cloned()
    }

    /// How many names it knows with this beginning.
    pub(super) fn count(&self, beginning: &str) -> usize {
        self.known().keys().filter(|name| name.starts_with(beginning)).count()
    }

    /// Some name it knows with this beginning.
    pub(super) fn some(&self, beginning: &str, random: &mut Random) -> Option<(String, String)> {
        let known = self.known();
        let all: Vec<_> = known.iter().filter(|(name, _)| name.starts_with(beginning)).collect();
        let place = usize::try_from(random.below(all.len() as u64)).ok()?;
        all.get(place).map(|(name, what)| ((*name).clone(), (*what).clone()))
    }

    /// Names a collection and watches it: through every replica at a time, and from one to the other.
    pub(super) fn collection(
        &self,
        sessions: &[Session],
        path: &str,
        shape: Shape,
        writers: Writers,
        who: &As,
        random: &mut Random,
    ) -> u16 {
        let id = self.recorder.collection(Collection { path: path.to_owned(), writers });
        let watched = Watched { id, path: path.to_owned(), shape, who: who.clone() };
        self.collections.lock().unwrap_or_else(PoisonError::into_inner).push(watched.clone());
        let places = sessions.first().map_or(0..0, Session::places);
        for place in places {
            self.watch(random.one(sessions), &watched, Manner { place, ..Manner::PINNED }, random);
        }
        self.watch(random.one(sessions), &watched, Manner::ROAMING, random);
        id
    }

    /// Watches a collection in a certain manner.
    pub(super) fn watch(&self, session: &Session, watched: &Watched, manner: Manner, random: &mut Random) {
        let plan = Plan {
            path: watched.path.clone(),
            collection: watched.id,
            shape: watched.shape,
            who: watched.who.clone(),
            selector: manner.selector,
            reader: manner.reader,
            place: manner.place,
            initial: manner.initial,
            seconds: manner.seconds,
        };
        let random = Random::new(random.draw());
        let watcher = Watcher::new(session.clone(), &self.recorder, plan, random, self.hurry.subscribe());
        let (plan, recording, position) = (watcher.plan().clone(), watcher.recording(), watcher.position());
        let task = tokio::spawn(watcher.run());
        let following = Following { plan, recording, position, task };
        self.following.lock().unwrap_or_else(PoisonError::into_inner).push(following);
    }

    pub(super) fn watched(&self) -> Vec<Watched> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for what is under way, but not for ever.
    pub(super) async fn quiet(&self, patience: Duration) {
        let started = Instant::now();
        while self.under_way.load(Ordering::Relaxed) > 0 && started.elapsed() < patience {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lists everything through every replica, lets every watch come to the end, and gives out the history.
    pub(super) async fn close(&self, sessions: &[Session]) -> History {
        self.hurry.send_replace(true);
        let mut last: BTreeMap<u16, Vec<(String, String, Revision)>> = BTreeMap::new();
        let mut listed_at: BTreeMap<u16, Revision> = BTreeMap::new();
        let mut silent: BTreeSet<usize> = BTreeSet::new();
        if let Some(session) = sessions.first() {
            let collections = self.watched();
            let asked = collections.iter().flat_map(|watched| session.places().map(move |place| (watched, place)));
            let asking =
                asked.map(async |(watched, place)| (watched, place, self.audit(session, watched, place).await));
            for (watched, place, shown) in join_all(asking).await {
                if let Some((revision, shown)) = shown {
                    // The oldest of the answers is what every watch comes to.
                    if listed_at.get(&watched.id).is_none_or(|known| revision < *known) {
                        last.insert(watched.id, shown);
                        listed_at.insert(watched.id, revision);
                    }
                } else {
                    silent.insert(place);
                    let about = format!("final list of {} through replica {}", watched.path, session.replica(place));
                    self.recorder.note(&about, "not answered".into());
                }
            }
        }
        let following = std::mem::take(&mut *self.following.lock().unwrap_or_else(PoisonError::into_inner));
        let mut waiting = Vec::new();
        for one in &following {
            let shown = last.get(&one.plan.collection).map(Vec::as_slice).unwrap_or_default();
            let chosen = shown.iter().filter(|(name, group, _)| {
                one.plan.selector.as_ref().is_none_or(|selector: &Selector| selector.chooses(name, group))
            });
            // A watch through a replica that does not answer is not expected to tell anything.
            let excused = match one.plan.reader {
                Reader::Pinned => silent.contains(&one.plan.place),
                Reader::Roaming | Reader::Slow => !silent.is_empty(),
            };
            if excused {
                continue;
            }
            if let Some(awaited) = chosen.map(|(.., revision)| *revision).max() {
                one.recording.awaits(awaited);
                waiting.push((Arc::clone(&one.position), awaited));
            }
        }
        // Lists are judged as far as watches have come: one of each collection goes on, by bookmarks, to where its lists stand.
        let mut covering: Vec<(Vec<Arc<AtomicU64>>, Revision)> = Vec::new();
        for (collection, revision) in listed_at {
            let whole = following.iter().filter(|one| one.plan.collection == collection && one.plan.selector.is_none());
            covering.push((whole.map(|one| Arc::clone(&one.position)).collect(), revision));
        }
        let started = Instant::now();
        let is_covered = |(positions, revision): &(Vec<Arc<AtomicU64>>, Revision)| {
            positions.iter().any(|position| position.load(Ordering::Relaxed) >= *revision)
        };
        while !covering.iter().all(is_covered) && started.elapsed() < COVER {
            tokio::time::sleep(LOOK).await;
        }
        while waiting.iter().any(|(position, awaited)| position.load(Ordering::Relaxed) < *awaited)
            && started.elapsed() < CATCH_UP
        {
            tokio::time::sleep(LOOK).await;
        }
        for one in following {
            one.task.abort();
            let _aborted = one.task.await;
            one.recording.leave();
        }
        self.recorder.finish()
    }

    /// Takes away what a closed part has left in the cluster, as far as the cluster lets it now.
    pub(super) async fn clear(&self, session: &Session, paths: &[(As, String)]) {
        for (who, path) in paths {
            for place in session.places() {
                let call = Call::new(who.clone(), Method::DELETE, path);
                let answer = session.request(place, &call).timeout(CLEAR).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success() || answer.status().as_u16() == 404) {
                    break;
                }
            }
        }
    }

    async fn audit(&self, session: &Session, watched: &Watched, place: usize) -> Option<Shown> {
        let started = Instant::now();
        while started.elapsed() < CATCH_UP {
            let request = Request::List {
                collection: watched.id,
                selector: None,
                freshness: Freshness::Latest,
                page: Page::Whole,
            };
            let call = Call::new(watched.who.clone(), Method::GET, &watched.path);
            let shape = watched.shape;
            let answer = session.ask(&self.recorder, place, call, request, |body| listed(shape, body)).await;
            if let Outcome::Items { revision, items, .. } = answer.outcome {
                return Some((
                    revision,
                    items.into_iter().map(|seen| (seen.name, seen.group, seen.revision)).collect(),
                ));
            }
            tokio::time::sleep(LOOK * 4).await;
        }
        None
    }
}

/// How a collection is watched.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) selector: Option<Selector>,
    pub(super) reader: Reader,
    pub(super) place: usize,
    pub(super) initial: bool,
    pub(super) seconds: Option<u64>,
}

impl Manner {
    /// One connection for as long as it holds.
    pub(super) const PINNED: Self =
        Self { selector: None, reader: Reader::Pinned, place: 0, initial: false, seconds: None };
    /// Many short ones, from one replica to the other.
    pub(super) const ROAMING: Self =
        Self { selector: None, reader: Reader::Roaming, place: 0, initial: false, seconds: Some(8) };
}
