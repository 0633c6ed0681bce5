//! Decides whether the contents of a store after a crash are allowed by the model.

use std::ops::ControlFlow;

use crate::content;
use crate::kept::Blob;
use crate::model::{Model, Rules};
use crate::op::{Op, Tag};
use crate::seen::{Seen, SeenBlob, Wrong};
use crate::units::{NEVER, Time, Units, Value, ZERO};
use crate::world::World;

/// The most differences reported; the first ones are enough.
const MOST: usize = 8;

/// Selects the values of a unit that count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// All values that a crash may leave.
    Crash,
    /// Values that a read may return now.
    Now,
}

/// Later than every operation that has ended.
const LATEST: Time = NEVER - 1;

impl When {
    fn allows(self, units: &Units, at: u64, value: Value) -> bool {
        match self {
            When::Crash => units.allows(at, value),
            When::Now => units.shows(at, value, LATEST),
        }
    }

    fn possible(self, units: &Units, at: u64) -> Vec<Value> {
        match self {
            When::Crash => units.possible(at),
            When::Now => units.visible(at, LATEST),
        }
    }
}

/// Compares the contents after a crash with the model: each pending operation on metadata has happened or has
/// not, and every unit holds an allowed value. If no store was found, `seen` says why.
///
/// # Errors
/// The differences from the nearest state that the model allows.
pub fn judge(model: &Model, seen: Result<&Seen, &str>) -> Result<(), Wrong> {
    compare(model, seen, When::Crash)
}

/// Compares the contents of a store in use with the model.
///
/// # Errors
/// The differences from the nearest state that the model allows.
pub fn judge_now(model: &Model, seen: &Seen) -> Result<(), Wrong> {
    compare(model, Ok(seen), When::Now)
}

fn compare(model: &Model, seen: Result<&Seen, &str>, when: When) -> Result<(), Wrong> {
    let open = model.open();
    // Contents are compared only if the metadata fits.
    let mut nearest: Option<(bool, Wrong)> = None;
    for world in &model.worlds {
        let fits = world.explore(&open, model.rules, &mut |world| {
            let (fits, wrong) = differences(model, world, seen, when);
            if wrong.is_empty() {
                return ControlFlow::Break(());
            }
            let nearer = |(best, least): &(bool, Wrong)| (!fits, wrong.len()) < (!best, least.len());
            if nearest.as_ref().is_none_or(nearer) {
                let happened = open.iter().filter(|(begun, _)| world.ahead.contains(begun));
                let which: Vec<&str> = happened.map(|(_, op)| op.name()).collect();
                let which = if which.is_empty() {
                    String::new()
                } else {
                    format!("with {} done: ", which.join(", "))
                };
                let told = wrong.into_iter().take(MOST).map(|wrong| format!("{which}{wrong}"));
                nearest = Some((fits, told.collect()));
            }
            ControlFlow::Continue(())
        });
        if fits.is_break() {
            return Ok(());
        }
    }
    Err(nearest.map(|(_, wrong)| wrong).unwrap_or_default())
}

/// Returns whether the metadata fits, and the differences.
fn differences(model: &Model, world: &World, seen: Result<&Seen, &str>, when: When) -> (bool, Wrong) {
    match (world.absent, seen) {
        (true, Err(_)) => (true, Wrong::new()),
        (true, Ok(_)) => (false, vec!["there should be no store".to_owned()]),
        (false, Err(why)) => (false, vec![format!("the store cannot be loaded: {why}")]),
        (false, Ok(seen)) => {
            let wrong = metadata(model, world, seen);
            match wrong.is_empty() {
                true => (true, contents(world, seen, model.rules, when)),
                false => (false, wrong),
            }
        }
    }
}

fn metadata(model: &Model, world: &World, seen: &Seen) -> Wrong {
    let mut wrong = Wrong::new();
    for (tag, blob) in &world.blobs {
        match seen.blobs.get(tag) {
            Some(seen) => blob_metadata(*tag, blob, seen, &mut wrong),
            None => wrong.push(format!("blob {tag} is gone")),
        }
    }
    let strangers = seen.blobs.iter().filter(|(tag, _)| !world.blobs.contains_key(tag));
    wrong.extend(strangers.map(|(tag, blob)| format!("blob {tag} ({}) should not be there", blob.id)));
    if world.clusters != seen.clusters {
        wrong.push(format!("there are {} clusters for data, not {}", seen.clusters, world.clusters));
    }
    if world.bs_type != seen.bs_type {
        wrong.push(format!("the type is {:?}, not {:?}", seen.bs_type, world.bs_type));
    }
    // A super blob that is deleted is cleared as super blob first.
    let deleted = |tag| model.pending.values().any(|pending| pending.op == Op::Delete { tag });
    let forgotten = seen.super_blob.is_none() && world.super_blob.is_some_and(deleted);
    if world.super_blob != seen.super_blob && !forgotten {
        wrong.push(format!("the super blob is {:?}, not {:?}", seen.super_blob, world.super_blob));
    }
    wrong
}

fn blob_metadata(tag: Tag, blob: &Blob, seen: &SeenBlob, wrong: &mut Wrong) {
    let mut differs = |what: &str, is: &dyn std::fmt::Debug, should: &dyn std::fmt::Debug| {
        wrong.push(format!("{what} of blob {tag} ({}) is {is:?}, not {should:?}", seen.id));
    };
    if blob.id.is_some_and(|id| id != seen.id) {
        differs("the id", &seen.id, &blob.id);
    }
    if blob.clusters != seen.clusters {
        differs("the size in clusters", &seen.clusters, &blob.clusters);
    }
    if blob.thin != seen.thin {
        differs("thin", &seen.thin, &blob.thin);
    }
    if !seen.thin && seen.allocated != seen.clusters {
        differs("the number of clusters that it has, thick,", &seen.allocated, &seen.clusters);
    }
    if blob.read_only != seen.read_only {
        differs("read-only", &seen.read_only, &blob.read_only);
    }
    if blob.parent != seen.parent {
        differs("the parent", &seen.parent, &blob.parent);
    }
    if !blob.xattrs.allows(&seen.xattrs) {
        differs("the list of xattrs", &seen.xattrs, blob.xattrs.now());
    }
}

fn contents(world: &World, seen: &Seen, rules: Rules, when: When) -> Wrong {
    let mut wrong = Wrong::new();
    for (tag, seen) in &seen.blobs {
        let Some(blob) = world.blobs.get(tag) else { continue };
        let units = blob.clusters * rules.per_cluster;
        let allows = |at: u64, value| when.allows(&blob.units, at, value);
        let written = seen.units.iter().filter(|(at, value)| !allows(**at, **value));
        let mut bad: Vec<(u64, u32)> = written.map(|(at, value)| (*at, *value)).collect();
        let lost = blob.units.places().filter(|at| *at < units && !seen.units.contains_key(at));
        bad.extend(lost.filter(|at| !allows(*at, ZERO)).map(|at| (at, ZERO)));
        wrong.extend(bad.into_iter().take(MOST).map(|(at, value)| {
            let may: Vec<String> = when.possible(&blob.units, at).into_iter().map(content::name).collect();
            let holds = content::name(value);
            format!("unit {at} of blob {tag} ({}) holds {holds}, not {}", seen.id, may.join(" or "))
        }));
    }
    wrong
}
