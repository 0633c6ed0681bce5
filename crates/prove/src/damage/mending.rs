//! Checks and repairs a damaged store. A repair reports correctly what it leaves, loses nothing, and leaves no work
//! for a second one.

use std::collections::BTreeSet;

use spindle_engine::sim::{Image, Rng};
use spindle_format::check::{Finding, mend};
use spindle_format::{BlobId, Change};

use super::broken::Broken;
use super::contents::{Allowed, lost};
use super::named::{damaged, is_named, is_pending, is_traceless};
use super::source::Base;
use super::state::State;

/// The rule that a repair writes nothing after the metadata.
const DATA: &str = "a repair writes metadata only";

/// Verifies that a store that cannot be loaded cannot be repaired either.
///
/// # Errors
/// A repair was worked out.
pub fn refused(base: &Base, image: &Image) -> Result<(), Broken> {
    match mend(&base.medium(image), &BTreeSet::new()) {
        Err(_) => Ok(()),
        Ok(_) => Err(Broken::new("what cannot be checked is not repaired", "a repair was worked out")),
    }
}

/// Repairs a store: completely, cut off halfway, twice, and with a blob given up.
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
    // What needs a metadata page while none is free: a load does not do it either.
    let waits_for_a_page = after.examined.store.repairs.iter().all(|repair| repair.changes.is_empty());
    if !left.is_empty() && left.iter().all(is_pending) && !waits_for_a_page {
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

/// Repairs the store with one damaged blob given up.
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

/// Verifies that readable blobs are still readable, and each damaged one is still named or now readable.
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
