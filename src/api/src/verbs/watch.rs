//! Watches: the present state if asked for, then every change, as lines of JSON flushed as they happen.
//!
//! A watcher is a cursor over the replica's history, so that nothing is queued for it and nothing can be lost: one
//! that falls behind reads on from history, and is told with a 410 inside the stream when that is gone.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use quilt_objects::canonical;
use quilt_objects::status::Status;
use quilt_objects::table::Definitions;
use quilt_proto::{Event, Key, KeyPrefix, Record, Revision};
use quilt_raft::{Batch, EventStream, View, WatchError};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::negotiate::{Encoding, Shape, Shapes, accept};
use crate::problem::Problem;
use crate::query::{ReadAt, WatchOptions, WatchStart};
#[cfg(test)]
use crate::quilt::tests::museum::watches::Exhibit;
use crate::render::{Renderer, include};
use crate::request::Call;
use crate::selection::Selection;
use crate::verbs::list::PAGE;

/// Time between bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its timeout a watch sends its last bookmark.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Without `timeoutSeconds` a watch lasts a random time between this and twice this, as upstream.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Answers with a stream of changes.
pub(crate) async fn watch(call: &Call) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::All)?;
    if form.encoding != Encoding::Json {
        return Err(Status::not_acceptable(&["application/json", "application/json;stream=watch"]).into());
    }
    let include_object = include(call.query.get("includeObject"))?;
    let options = WatchOptions::parse(&call.query)?;
    let selection = Selection::parse(call.kind, &options.list)?;
    let prefix = selection.prefix(call)?;
    let (view, initial) = match options.start {
        WatchStart::State { at, .. } => (call.view(at).await?, true),
        WatchStart::After(0) => (call.view(ReadAt::Latest).await?, false),
        // Where history no longer reaches back that far, the stream says so as its first event: clients that resume a
        // watch look for that there, as upstream has it, and some take any other refusal for a reason to ask again.
        WatchStart::After(version) => (call.view(ReadAt::Exact(version)).await?, false),
    };
    let from = view.revision();
    #[cfg(test)]
    let from = if Exhibit::BelowTheList.is_shown() { Revision::new(from.get() - 2) } else { from };
    let marked = matches!(options.start, WatchStart::State { marked: true, .. });
    let now = Instant::now();
    let end = now + options.timeout.unwrap_or_else(default_timeout);
    let watcher = Watcher {
        events: call.api.replica.watch(prefix.clone(), from),
        initial: initial.then_some(Initial { view, prefix, after: None }),
        renderer: Renderer::new(
            call.kind,
            form,
            include_object,
            &call.api.options.root_key,
            call.api.replica.wall_ms(),
        ),
        selection,
        mark_initial_end: marked,
        bookmark_at: options.bookmarks.then(|| next_bookmark(now, end)),
        end,
        columns: Definitions::Shown,
        draining: call.api.draining(),
        position: from.get(),
        state: State::Open,
    };
    let mut response = Response::new(Body::from_stream(watcher.stream()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn default_timeout() -> Duration {
    let mut byte = [0];
    // Without randomness every watch lasts equally long, which is harmless.
    let _ = SystemRandom::new().fill(&mut byte);
    DEFAULT_TIMEOUT + DEFAULT_TIMEOUT * u32::from(byte[0]) / 256
}

/// Every minute, and once more shortly before the end.
fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(end);
    let next = now + BOOKMARK_EVERY;
    if last > now { next.min(last) } else { next }
}

/// The state a watch begins with.
struct Initial {
    view: View,
    prefix: KeyPrefix,
    after: Option<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Ended,
}

/// Why a waiting watch goes on.
enum Woken {
    Changes(Result<Batch, WatchError>),
    Time,
    Draining,
}

/// Returns when the replica is being shut down; never, when its state is gone already.
async fn drained(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One open watch.
struct Watcher {
    events: EventStream,
    initial: Option<Initial>,
    renderer: Renderer,
    selection: Selection,
    mark_initial_end: bool,
    bookmark_at: Option<Instant>,
    end: Instant,
    columns: Definitions,
    draining: watch::Receiver<bool>,
    position: u64,
    state: State,
}

impl Watcher {
    fn stream(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
        futures::stream::unfold(self, |mut watcher| async move {
            let chunk = watcher.next().await?;
            Some((Ok(chunk), watcher))
        })
    }

    /// The next lines; `None` when the watch has ended.
    async fn next(&mut self) -> Option<Bytes> {
        if self.state == State::Ended {
            return None;
        }
        let mut out = BytesMut::new();
        while out.is_empty() && self.state == State::Open {
            if let Err(problem) = self.advance(&mut out).await {
                line(&mut out, "ERROR", problem.to_value().to_string().as_bytes());
                self.state = State::Ended;
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    async fn advance(&mut self, out: &mut BytesMut) -> Result<(), Problem> {
        if let Some(initial) = self.initial.take() {
            return self.show_state(initial, out);
        }
        let wake = self.bookmark_at.map_or(self.end, |at| at.min(self.end));
        let woken = tokio::select! {
            batch = self.events.next() => Woken::Changes(batch),
            () = tokio::time::sleep_until(wake) => Woken::Time,
            () = drained(&mut self.draining) => Woken::Draining,
        };
        match woken {
            Woken::Changes(Ok(batch)) => {
                for event in &batch.events {
                    self.show(event, out)?;
                }
                self.position = self.position.max(batch.upto.get());
            }
            Woken::Changes(Err(WatchError::Compacted { floor })) => {
                return Err(Status::too_old(self.position, floor.get()).into());
            }
            Woken::Changes(Err(WatchError::Storage(why))) => return Err(Problem::internal(&why)),
            // The cluster is gone, or the replica goes: the client finds out where it asks next.
            Woken::Changes(Err(WatchError::Dropped | WatchError::Stopped)) => self.state = State::Ended,
            Woken::Time => {
                let now = Instant::now();
                if self.bookmark_at.is_some_and(|at| at <= now) {
                    self.bookmark(None, out);
                    self.bookmark_at = Some(next_bookmark(now, self.end));
                }
                if now >= self.end {
                    self.state = State::Ended;
                }
            }
            Woken::Draining => {
                if self.bookmark_at.is_some() {
                    self.bookmark(None, out);
                }
                self.state = State::Ended;
            }
        }
        Ok(())
    }

    /// One page of the initial state, and its closing mark after the last.
    fn show_state(&mut self, mut initial: Initial, out: &mut BytesMut) -> Result<(), Problem> {
        #[cfg(test)]
        self.plant_in_state(out);
        let page = initial.view.scan(&initial.prefix, initial.after.as_ref(), PAGE)?;
        for (key, record) in &page.records {
            if self.selection.matches(key, record)? {
                self.event("ADDED", record, out)?;
            }
        }
        match page.records.last() {
            Some((key, _)) if page.more => {
                initial.after = Some(key.clone());
                self.initial = Some(initial);
            }
            _ if self.mark_initial_end => self.bookmark(Some(&json!({"k8s.io/initial-events-end": "true"})), out),
            _ => {}
        }
        Ok(())
    }

    /// The museum's bugs in how the initial state ends.
    #[cfg(test)]
    fn plant_in_state(&mut self, out: &mut BytesMut) {
        if self.mark_initial_end && Exhibit::InitialEndEarly.is_shown() {
            self.bookmark(Some(&json!({"k8s.io/initial-events-end": "true"})), out);
            self.mark_initial_end = false;
        }
        self.mark_initial_end &= !Exhibit::InitialEndMissing.is_shown();
    }

    /// One change, as the selectors see it.
    fn show(&mut self, event: &Event, out: &mut BytesMut) -> Result<(), Problem> {
        let matches = |record: &Option<std::sync::Arc<Record>>| match record {
            Some(record) => self.selection.matches(&event.key, record),
            None => Ok(false),
        };
        let (before, after) = (matches(&event.previous)?, matches(&event.record)?);
        match (before, after, &event.previous, &event.record) {
            (false, true, _, Some(record)) => self.event("ADDED", record, out),
            (true, true, _, Some(record)) => self.event("MODIFIED", record, out),
            #[cfg(test)]
            (true, false, Some(_), Some(_)) if Exhibit::LeavingUntold.is_shown() => Ok(()),
            (true, false, Some(previous), _) => {
                let gone = at_revision(previous, event.revision)?;
                self.event("DELETED", &gone, out)
            }
            _ => Ok(()),
        }
    }

    fn event(&mut self, kind: &str, record: &Record, out: &mut BytesMut) -> Result<(), Problem> {
        let mut object = BytesMut::with_capacity(record.value.len() + 64);
        self.renderer.event(record, self.columns, &mut object)?;
        if self.renderer.form().shape == Shape::Table {
            self.columns = Definitions::Omitted;
        }
        line(out, kind, &object);
        Ok(())
    }

    /// Says how far this watch has come.
    fn bookmark(&mut self, annotations: Option<&Value>, out: &mut BytesMut) {
        self.position = self.position.max(self.events.position().get());
        let object = self.renderer.bookmark(self.position, annotations);
        line(out, "BOOKMARK", object.to_string().as_bytes());
    }
}

/// The last version of an object, carrying the revision at which it left.
fn at_revision(previous: &Record, revision: Revision) -> Result<Record, Problem> {
    let value = canonical::resplice(&previous.value, previous.splice_at, previous.mod_revision, revision.get())
        .map_err(|error| Problem::internal(&error.to_string()))?;
    Ok(Record { value, mod_revision: revision.get(), ..previous.clone() })
}

fn line(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}
