//! Whether what a store shows after a crash is something that the model allows.

use crate::content;
use crate::model::{Blob, Model};
use crate::op::{Op, Tag};
use crate::seen::{Seen, SeenBlob, Wrong};
use crate::units::{Time, ZERO};

/// At most so many differences are told; the first ones say what happened.
const MOST: usize = 8;

/// Holds a store against the model: every operation on metadata under way has happened or has not, and every
/// unit holds something that it may hold. Where no store was found, it says why.
///
/// # Errors
/// What differs: for metadata in every way that the operations under way may have gone, else for contents.
pub fn judge(model: &Model, seen: Result<&Seen, &str>) -> Result<(), Wrong> {
    let open: Vec<(Time, &Op)> = model
        .pending
        .iter()
        .map(|(begun, pending)| (*begun, &pending.op))
        .filter(|(_, op)| !op.is_data())
        .collect();
    let mut told = Wrong::new();
    for ways in 0..1u32 << open.len().min(5) {
        let happened: Vec<&(Time, &Op)> =
            open.iter().enumerate().filter(|(at, _)| ways >> at & 1 == 1).map(|(_, op)| op).collect();
        let altered;
        let after = if happened.is_empty() {
            model
        } else {
            let mut after = model.clone();
            for (begun, op) in &happened {
                after.happened(*begun, op, None, model.rules.per_cluster);
            }
            altered = after;
            &altered
        };
        let wrong = match (after.absent, seen) {
            (true, Err(_)) => return Ok(()),
            (true, Ok(_)) => vec!["there should be no store".to_owned()],
            (false, Err(why)) => vec![format!("the store cannot be loaded: {why}")],
            (false, Ok(seen)) => {
                let mut wrong = metadata(after, seen);
                if wrong.is_empty() {
                    wrong = contents(after, seen);
                    if wrong.is_empty() {
                        return Ok(());
                    }
                    told.clear();
                }
                wrong
            }
        };
        let which: Vec<&str> = happened.iter().map(|(_, op)| op.name()).collect();
        let which =
            if which.is_empty() { String::new() } else { format!("with {} done: ", which.join(", ")) };
        told.extend(wrong.into_iter().take(MOST).map(|wrong| format!("{which}{wrong}")));
    }
    Err(told)
}

fn metadata(model: &Model, seen: &Seen) -> Wrong {
    let mut wrong = Wrong::new();
    for (tag, blob) in &model.blobs {
        match seen.blobs.get(tag) {
            Some(seen) => blob_metadata(*tag, blob, seen, &mut wrong),
            None => wrong.push(format!("blob {tag} is gone")),
        }
    }
    let strangers = seen.blobs.iter().filter(|(tag, _)| !model.blobs.contains_key(tag));
    wrong.extend(strangers.map(|(tag, blob)| format!("blob {tag} ({}) should not be there", blob.id)));
    if !model.clusters.allows(&seen.clusters) {
        wrong.push(format!("there are {} clusters for data, not {}", seen.clusters, model.clusters.now()));
    }
    if !model.bs_type.allows(&seen.bs_type) {
        wrong.push(format!("the type is {:?}, not {:?}", seen.bs_type, model.bs_type.now()));
    }
    if !model.super_blob.allows(&seen.super_blob) {
        wrong.push(format!("the super blob is {:?}, not {:?}", seen.super_blob, model.super_blob.now()));
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

fn contents(model: &Model, seen: &Seen) -> Wrong {
    let mut wrong = Wrong::new();
    for (tag, seen) in &seen.blobs {
        let Some(blob) = model.blobs.get(tag) else { continue };
        let units = blob.clusters * model.rules.per_cluster;
        let written = seen.units.iter().filter(|(at, value)| !blob.units.allows(**at, **value));
        let mut bad: Vec<(u64, u32)> = written.map(|(at, value)| (*at, *value)).collect();
        let lost = blob.units.places().filter(|at| *at < units && !seen.units.contains_key(at));
        bad.extend(lost.filter(|at| !blob.units.allows(*at, ZERO)).map(|at| (at, ZERO)));
        wrong.extend(bad.into_iter().take(MOST).map(|(at, value)| {
            let may: Vec<String> = blob.units.possible(at).into_iter().map(content::name).collect();
            let holds = content::name(value);
            format!("unit {at} of blob {tag} ({}) holds {holds}, not {}", seen.id, may.join(" or "))
        }));
    }
    wrong
}
