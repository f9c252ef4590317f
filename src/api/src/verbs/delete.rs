//! DELETE of one object and of a collection.

use axum::body::Body;
use bytes::Bytes;
use futures::TryStreamExt;
use http::{Response, StatusCode};
use quilt_objects::place;
use quilt_objects::status::{Details, Status};
use quilt_proto::{Compare, Op, Revision};
use quilt_raft::View;
use serde_json::Value;

use crate::access::Admitted;
use crate::body;
use crate::commit::{Change, Plan, commit};
use crate::lifecycle::{self, Allocation, Deletion};
use crate::metadata;
use crate::negotiate::{Encoding, Shapes, accept};
use crate::problem::Problem;
use crate::query::{DryRun, ListOptions, ReadAt};
use crate::records;
use crate::render::respond_value;
use crate::request::Call;
use crate::selection::Selection;
use crate::verbs::list::PAGE;
use crate::verbs::update::with_revision;

/// Finalizer by which dependents go first.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer by which dependents stay.
const ORPHAN: &str = "orphan";
/// Deletions of a collection under way at a time.
const CONCURRENT: usize = 16;

/// What becomes of objects owned by the deleted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    /// Nothing was said: what the object's finalizers say stays.
    Unset,
    Background,
    Foreground,
    Orphan,
}

/// `DeleteOptions`.
#[derive(Clone, Debug)]
pub(crate) struct DeleteOptions {
    grace_seconds: Option<u64>,
    propagation: Propagation,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: DryRun,
}

impl DeleteOptions {
    /// From the body, completed by query parameters.
    pub(crate) fn parse(call: &Call, bytes: &Bytes) -> Result<Self, Problem> {
        let document = if bytes.is_empty() { Value::Null } else { body::delete_options(call, bytes)? };
        let options = Self::from_document(&document)?;
        let grace_seconds = call.query.number("gracePeriodSeconds")?.or(options.grace_seconds);
        let propagation = match call.query.get("propagationPolicy") {
            Some(text) => propagation(text)?,
            None if call.query.flag("orphanDependents")? => Propagation::Orphan,
            None => options.propagation,
        };
        let dry_run = if call.query.dry_run()? == DryRun::All { DryRun::All } else { options.dry_run };
        Ok(Self { grace_seconds, propagation, dry_run, ..options })
    }

    /// From a `DeleteOptions` document; null means none.
    pub(crate) fn from_document(document: &Value) -> Result<Self, Problem> {
        let grace_seconds = match place::int(document, &["gracePeriodSeconds"]) {
            None => None,
            Some(seconds) => Some(u64::try_from(seconds).map_err(|_| {
                Problem::bad_request(format!("gracePeriodSeconds is {seconds}, expected a whole number"))
            })?),
        };
        let propagation = match place::text(document, &["propagationPolicy"]) {
            Some(text) => propagation(text)?,
            None if place::flag(document, &["orphanDependents"]) => Propagation::Orphan,
            None => Propagation::Unset,
        };
        let precondition = |field: &str| {
            place::text(document, &["preconditions", field]).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let mut dry_run = DryRun::Off;
        for value in place::items(document, &["dryRun"]) {
            if value != "All" {
                return Err(Problem::bad_request(format!("dryRun is {value}, expected All")));
            }
            dry_run = DryRun::All;
        }
        Ok(Self {
            grace_seconds,
            propagation,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run,
        })
    }

    /// The deletion of the object with this uid in the background, with the grace it asks for itself.
    pub(crate) fn background(uid: &str) -> Self {
        Self {
            grace_seconds: None,
            propagation: Propagation::Background,
            uid: Some(uid.into()),
            resource_version: None,
            dry_run: DryRun::Off,
        }
    }

    /// The end of an object that whoever ran it has finished with: no grace.
    pub(crate) fn ended(uid: &str) -> Self {
        Self { grace_seconds: Some(0), propagation: Propagation::Unset, ..Self::background(uid) }
    }

    /// Whether the write is only tried.
    pub(crate) const fn dry_run(&self) -> DryRun {
        self.dry_run
    }
}

fn propagation(text: &str) -> Result<Propagation, Problem> {
    match text {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => Err(Problem::bad_request(format!(
            "propagationPolicy is {other:?}, expected Background, Foreground or Orphan"
        ))),
    }
}

/// What a deletion came to.
#[derive(Clone, Debug)]
pub(crate) enum Deleted {
    /// The object is gone.
    Gone(Value),
    /// It is marked and goes later.
    Marked(Value),
}

/// Deletes one object.
pub(crate) async fn delete(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::ObjectOnly)?;
    let options = DeleteOptions::parse(call, &bytes)?;
    let done = commit(call, options.dry_run, |view, admitted| plan(call, view, admitted, &call.name, &options)).await?;
    let (first, last) = (done.first, done.last);
    match done.answer {
        Deleted::Gone(object) => {
            let removed_kind = lifecycle::of(call.kind).removed_kind;
            let kind = if removed_kind.is_empty() { &*call.kind.plural } else { removed_kind };
            let uid = place::text_or_empty(&object, &["metadata", "uid"]);
            let status = Status::deleted(call.kind.into(), kind, &call.name, uid);
            respond_value(StatusCode::OK, form.encoding, &status.to_value())
        }
        Deleted::Marked(object) => {
            let object = with_revision(crate::commit::Done { answer: object, first, last });
            respond_value(StatusCode::OK, form.encoding, &object)
        }
    }
}

/// The deletion of one object on one view.
pub(crate) fn plan(
    call: &Call,
    view: &View,
    admitted: &Admitted,
    name: &str,
    options: &DeleteOptions,
) -> Result<Plan<Deleted>, Problem> {
    let kind = call.kind;
    let key = call.key(name)?;
    let record = view.get(&key)?.ok_or_else(|| Problem::not_found(kind, name))?;
    let root = &call.api.options.root_key;
    let old = records::parse(root, kind, &record)?;
    check_preconditions(call, name, options, &old)?;
    let lifecycle = lifecycle::of(kind);
    let at = Allocation { view, cluster: &admitted.cluster, now_ms: call.api.replica.wall_ms() };
    let mut compares = vec![Compare::at(&key, Revision::new(record.mod_revision))];
    let deletion = (lifecycle.deletion)(&old, options.grace_seconds)?;
    let mut new = old.clone();
    let finalizers = finalizers_for(options.propagation, &old);
    place::set(&mut new, &["metadata", "finalizers"], finalizers.clone());
    if finalizers.is_empty() {
        place::remove(&mut new, &["metadata", "finalizers"]);
    }
    let grace_seconds = match &deletion {
        Deletion::Graceful { grace_seconds } => *grace_seconds,
        Deletion::Now | Deletion::Marked(_) => 0,
    };
    if finalizers.is_empty() && deletion == Deletion::Now {
        let claims = (lifecycle.allocate)(&at, Some(&old), None)?;
        compares.extend(claims.compares);
        let mut ops = vec![Op::delete(&key)];
        ops.extend(claims.ops);
        return Ok(Plan::Commit(Change { compares, ops, answer: Deleted::Gone(old) }));
    }
    mark(call, &old, &mut new, grace_seconds);
    if let Deletion::Marked(changes) = deletion {
        merge(&mut new, &changes);
    }
    if records::same(&old, &new) {
        return Ok(Plan::Unchanged(Deleted::Marked(old)));
    }
    let mut ops = vec![records::put(root, kind, &key, &new)?];
    if !metadata::is_deleting(&old) {
        let claims = (lifecycle.parting)(&at, &old)?;
        compares.extend(claims.compares);
        ops.extend(claims.ops);
    }
    Ok(Plan::Commit(Change { compares, ops, answer: Deleted::Marked(new) }))
}

fn check_preconditions(call: &Call, name: &str, options: &DeleteOptions, old: &Value) -> Result<(), Problem> {
    let own = |field: &str| place::text_or_empty(old, &["metadata", field]);
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != own("uid")) {
        return Err(Status::uid_precondition(call.kind.into(), name, uid, own("uid")).into());
    }
    let version = options.resource_version.as_deref().filter(|version| *version != own("resourceVersion"));
    if let Some(version) = version {
        return Err(Status::version_precondition(call.kind.into(), name, version, own("resourceVersion")).into());
    }
    Ok(())
}

/// The finalizers after a deletion with this propagation.
fn finalizers_for(propagation: Propagation, old: &Value) -> Vec<String> {
    let mut finalizers = metadata::finalizers(old);
    let wanted = match propagation {
        Propagation::Unset => return finalizers,
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    finalizers
        .retain(|finalizer| Some(finalizer.as_str()) == wanted || (finalizer != FOREGROUND && finalizer != ORPHAN));
    if let Some(wanted) = wanted.filter(|wanted| !finalizers.iter().any(|own| own == wanted)) {
        finalizers.push(wanted.to_owned());
    }
    finalizers
}

/// Sets deletion time and grace; a repeated deletion can only shorten the grace.
fn mark(call: &Call, old: &Value, new: &mut Value, grace_seconds: u64) {
    let before = place::int(old, &["metadata", "deletionGracePeriodSeconds"]).and_then(|own| u64::try_from(own).ok());
    if metadata::is_deleting(old) && before.is_none_or(|before| before <= grace_seconds) {
        return;
    }
    let now_ms = call.api.replica.wall_ms();
    let deadline = crate::context::timestamp(now_ms.saturating_add(grace_seconds.saturating_mul(1000)));
    place::set(new, &["metadata", "deletionTimestamp"], deadline);
    place::set(new, &["metadata", "deletionGracePeriodSeconds"], grace_seconds);
    if !metadata::is_deleting(old) {
        metadata::bump_generation(new);
    }
}

fn merge(target: &mut Value, changes: &Value) {
    if let (Some(target), Some(changes)) = (target.as_object_mut(), changes.as_object()) {
        for (key, change) in changes {
            merge(target.entry(key.as_str()).or_insert(Value::Null), change);
        }
        return;
    }
    target.clone_from(changes);
}

/// Deletes every object of the collection that the selectors choose, each by a write of its own.
pub(crate) async fn delete_collection(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::ObjectOnly).map_or(Encoding::Json, |form| form.encoding);
    let options = DeleteOptions::parse(call, &bytes)?;
    let list = ListOptions::for_list(&call.query)?;
    let selection = Selection::parse(call.kind, &list)?;
    let view = call.view(ReadAt::Latest).await?;
    let prefix = selection.prefix(call)?;
    let mut after = None;
    let mut left = if list.limit == 0 { u64::MAX } else { list.limit };
    loop {
        let page = view.scan(&prefix, after.as_ref(), PAGE)?;
        let mut chosen = Vec::new();
        for (key, record) in &page.records {
            if left > 0 && selection.matches(key, record)? {
                left -= 1;
                let parts = key.parts();
                let (namespace, name) = (parts.namespace.to_owned(), parts.name.to_owned());
                chosen.push(Call { namespace, name, ..call.clone() });
            }
        }
        futures::stream::iter(chosen.into_iter().map(Ok::<_, Problem>))
            .try_for_each_concurrent(CONCURRENT, |one| delete_chosen(one, &options))
            .await?;
        match page.records.last() {
            Some((key, _)) if page.more && left > 0 => after = Some(key.clone()),
            _ => break,
        }
    }
    let details =
        Details { group: call.kind.group.to_string(), kind: call.kind.plural.to_string(), ..Details::default() };
    let status = Status { details: Some(details), ..Status::success() };
    respond_value(StatusCode::OK, form, &status.to_value())
}

/// One of a collection; that somebody else deleted it first is no failure.
async fn delete_chosen(call: Call, options: &DeleteOptions) -> Result<(), Problem> {
    let deleted =
        commit(&call, options.dry_run, |view, admitted| plan(&call, view, admitted, &call.name, options)).await;
    match deleted {
        Ok(_) => Ok(()),
        Err(problem) if problem.code() == 404 => Ok(()),
        Err(problem) => Err(problem),
    }
}
