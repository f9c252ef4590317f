//! Ownership: objects whose owners are gone go too; `foregroundDeletion` waits for them, `orphan` lets them live.

use quilt_proto::Key;
use serde_json::Value;

use crate::ending::{end, mark, take_finalizer_off};
use crate::fields;
use crate::object::{Object, Owner};
use crate::plan::Plan;
use crate::view::{LoadError, Occasion, View};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// One look at the object at `key`, as an owner that is being deleted and as a dependent.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(object) = view.cluster.get(key) else { return Ok(plan) };
    if object.deletion.is_some() {
        let holds = |finalizer: &str| object.finalizers.iter().any(|held| held == finalizer);
        if holds(ORPHAN) {
            orphan(&mut plan, view, object)?;
        } else if holds(FOREGROUND) {
            take_dependents(&mut plan, view, object, at)?;
        }
        return Ok(plan);
    }
    if !object.owners.is_empty() {
        follow_owners(&mut plan, view, object, at)?;
    }
    Ok(plan)
}

/// Takes the owner off its dependents, then the finalizer off the owner.
fn orphan(plan: &mut Plan, view: &View<'_>, owner: &Object) -> Result<(), LoadError> {
    for dependent in view.cluster.owned_by(&owner.uid) {
        if plan.is_full() {
            return Ok(());
        }
        let Some(mut loaded) = view.load_seen(dependent)? else {
            plan.more = true;
            return Ok(());
        };
        drop_owner(&mut loaded.value, |reference| fields::text(reference, "/uid") == owner.uid);
        plan.update(loaded);
    }
    if let Some(loaded) = view.load_seen(owner)? {
        take_finalizer_off(plan, view.cluster, loaded, ORPHAN);
    }
    Ok(())
}

/// Deletes the dependents; when none that blocks is left, the owner goes.
fn take_dependents(plan: &mut Plan, view: &View<'_>, owner: &Object, at: &Occasion) -> Result<(), LoadError> {
    let mut blocked = false;
    for dependent in view.cluster.owned_by(&owner.uid) {
        blocked |= dependent.owners.iter().any(|reference| reference.uid == owner.uid && reference.blocks);
        if dependent.deletion.is_some() {
            continue;
        }
        if plan.is_full() {
            return Ok(());
        }
        // A dependent with other owners that live stays and only loses this one.
        let Some(loaded) = view.load_seen(dependent)? else { continue };
        if lives_on(view, dependent, &owner.uid)? {
            let mut loaded = loaded;
            drop_owner(&mut loaded.value, |reference| fields::text(reference, "/uid") == owner.uid);
            plan.update(loaded);
        } else {
            delete_with_dependents(plan, view, dependent, loaded, at)?;
        }
    }
    if !blocked && let Some(loaded) = view.load_seen(owner)? {
        take_finalizer_off(plan, view.cluster, loaded, FOREGROUND);
    }
    Ok(())
}

/// A dependent that has dependents of its own waits for them in turn.
fn delete_with_dependents(
    plan: &mut Plan,
    view: &View<'_>,
    dependent: &Object,
    mut loaded: crate::view::Loaded,
    at: &Occasion,
) -> Result<(), LoadError> {
    let has_dependents = view
        .cluster
        .owned_by(&dependent.uid)
        .any(|of| of.owners.iter().any(|owner| owner.uid == dependent.uid && owner.blocks));
    if has_dependents && dependent.pod().is_none() {
        fields::list_mut(&mut loaded.value, &["metadata", "finalizers"]).push(FOREGROUND.into());
        mark(&mut loaded.value, at.now, 0);
        plan.update(loaded);
        return Ok(());
    }
    end(plan, view, loaded, at.now)
}

enum Fate {
    /// The owner exists.
    Lives,
    /// The owner exists and waits for its dependents to go.
    Waits,
    /// There is no such owner.
    Gone,
}

fn follow_owners(plan: &mut Plan, view: &View<'_>, object: &Object, at: &Occasion) -> Result<(), LoadError> {
    let mut gone: Vec<&str> = Vec::new();
    let (mut lives, mut waits) = (false, false);
    for owner in &object.owners {
        match fate(view, object, owner)? {
            Fate::Lives => lives = true,
            Fate::Waits => waits |= owner.blocks,
            Fate::Gone => gone.push(&owner.uid),
        }
    }
    if gone.is_empty() && !waits {
        return Ok(());
    }
    let Some(mut loaded) = view.load_seen(object)? else { return Ok(()) };
    if lives {
        if !gone.is_empty() {
            drop_owner(&mut loaded.value, |reference| gone.contains(&fields::text(reference, "/uid")));
            plan.update(loaded);
        }
        return Ok(());
    }
    if waits {
        return delete_with_dependents(plan, view, object, loaded, at);
    }
    if gone.len() == object.owners.len() {
        end(plan, view, loaded, at.now)?;
    }
    Ok(())
}

/// Whether `object` has an owner besides `uid` that lives.
fn lives_on(view: &View<'_>, object: &Object, uid: &str) -> Result<bool, LoadError> {
    for owner in object.owners.iter().filter(|owner| owner.uid != uid) {
        if matches!(fate(view, object, owner)?, Fate::Lives) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn fate(view: &View<'_>, object: &Object, owner: &Owner) -> Result<Fate, LoadError> {
    // An owner of a kind nobody knows may be served again tomorrow: nothing is deleted on a guess.
    let Some(key) = view.cluster.owner_key(object, owner) else { return Ok(Fate::Lives) };
    let loaded = view.load(&key)?;
    let Some(found) = loaded.filter(|found| fields::text(&found.value, "/metadata/uid") == owner.uid) else {
        return Ok(Fate::Gone);
    };
    let going = found.value.pointer("/metadata/deletionTimestamp").is_some();
    let finalizers = fields::list(&found.value, "/metadata/finalizers");
    let waits = going && finalizers.iter().any(|held| held.as_str() == Some(FOREGROUND));
    Ok(if waits { Fate::Waits } else { Fate::Lives })
}

fn drop_owner(object: &mut Value, goes: impl Fn(&Value) -> bool) {
    let owners = fields::list_mut(object, &["metadata", "ownerReferences"]);
    owners.retain(|reference| !goes(reference));
    if owners.is_empty() {
        fields::remove(object, &["metadata", "ownerReferences"]);
    }
}
