//! Checking and repairing a damaged store: a repair says truly what it leaves, loses nothing, and is done once.

use std::collections::BTreeSet;

use spindle_engine::sim::{Image, Rng};
use spindle_format::check::{Finding, mend};
use spindle_format::{BlobId, Change};

use super::contents::{Allowed, lost};
use super::named::{damaged, is_named, is_pending, is_traceless};
use super::source::Base;
use super::{Broken, State};

/// What a repair may write behind the metadata: nothing.
const DATA: &str = "a repair writes metadata only";

/// A store that cannot be loaded cannot be repaired, and is left alone.
///
/// # Errors
/// It was.
pub fn refused(base: &Base, image: &Image) -> Result<(), Broken> {
    match mend(&base.medium(image), &BTreeSet::new()) {
        Err(_) => Ok(()),
        Ok(_) => Err(Broken::new("what cannot be checked is not repaired", "a repair was worked out")),
    }
}

/// Repairs a store, cut off and not, once and again, and with a blob given up.
///
/// # Errors
/// A rule was broken.
pub fn judge(base: &Base, image: &Image, before: &State, rng: &mut Rng) -> Result<(), Broken> {
    let none = BTreeSet::new();
    let failed = |error| Broken::new("what can be checked can be repaired", format!("{error}"));
    let mended = mend(&base.medium(image), &none).map_err(failed)?;
    if mended.before != before.examined.findings {
        return Err(Broken::new("a repair begins with what a check finds", told(&mended.before)));
    }
    let repaired = carried_out(image, &mended.changes);
    data_is_untouched(before, image, &repaired)?;
    let after = State::of(base, &repaired)?;
    if mended.after != after.examined.findings {
        let (says, is) = (told(&mended.after), told(&after.examined.findings));
        return Err(Broken::new(
            "a check finds what a repair says it leaves",
            format!("it said {says}; found: {is}"),
        ));
    }
    let left = &after.examined.findings;
    if !left.is_empty() && left.iter().all(is_pending) {
        return Err(Broken::new(
            "a repair leaves nothing that a load would do, unless damage is left",
            told(left),
        ));
    }
    kept(base, &repaired, before, &after, &BTreeSet::new())?;
    let again = mend(&base.medium(&repaired), &none).map_err(failed)?;
    let twice = carried_out(&repaired, &again.changes);
    if let Some(at) = twice.first_difference(&repaired) {
        return Err(Broken::new("a second repair changes nothing", format!("byte {at} is another")));
    }
    if !mended.changes.is_empty() {
        let some = rng.below(mended.changes.len());
        let cut = carried_out(image, &mended.changes[..some]);
        let cut_off = |broken: Broken| Broken {
            what: format!("cut off after {some} of {}: {}", mended.changes.len(), broken.what),
            ..broken
        };
        let left = State::of(base, &cut).map_err(cut_off)?;
        kept(base, &cut, before, &left, &BTreeSet::new()).map_err(cut_off)?;
    }
    give_up(base, image, before, rng)
}

/// Repairs with a damaged blob given up.
fn give_up(base: &Base, image: &Image, before: &State, rng: &mut Rng) -> Result<(), Broken> {
    let damaged: Vec<BlobId> = before.examined.store.damaged.iter().map(|damaged| damaged.id).collect();
    if damaged.is_empty() {
        return Ok(());
    }
    let gone = BTreeSet::from([damaged[rng.below(damaged.len())]]);
    let Ok(mended) = mend(&base.medium(image), &gone) else { return Ok(()) };
    let repaired = carried_out(image, &mended.changes);
    data_is_untouched(before, image, &repaired)?;
    kept(base, &repaired, before, &State::of(base, &repaired)?, &gone)
}

fn carried_out(image: &Image, changes: &[Change]) -> Image {
    let mut image = image.clone();
    for change in changes {
        match change {
            Change::Write { offset, bytes } => image.write(*offset, bytes),
            Change::Zero { offset, len } | Change::Unmap { offset, len } => image.zero(*offset, *len),
            Change::Flush => {}
        }
    }
    image
}

fn data_is_untouched(state: &State, before: &Image, after: &Image) -> Result<(), Broken> {
    let geometry = &state.examined.store.geometry;
    let (start, length) = geometry.bytes_of(geometry.metadata());
    let end = (start + length).min(before.size());
    match before.is_same(after, end, before.size() - end) {
        true => Ok(()),
        false => Err(Broken::new(DATA, "a byte of data is another")),
    }
}

/// What could be read can be read, and what could not is still named or can be read now.
fn kept(
    base: &Base,
    image: &Image,
    before: &State,
    after: &State,
    gone: &BTreeSet<BlobId>,
) -> Result<(), Broken> {
    for (id, blob) in before.readable.iter().filter(|(id, _)| !gone.contains(id)) {
        if let Some(what) = lost(*id, blob, after.readable.get(id), &Allowed::default()) {
            return Err(Broken::new("a repair makes nothing unreadable", what));
        }
    }
    let left = &after.examined.findings;
    for id in damaged(before).difference(gone) {
        let whole = after.readable.get(id).is_some_and(|blob| blob.is_whole());
        if !whole && !is_named(left, *id) && !is_traceless(base, image, after, *id) {
            return Err(Broken::new("a repair keeps the findings of what it leaves", format!("blob {id}")));
        }
    }
    Ok(())
}

fn told(findings: &[Finding]) -> String {
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}
