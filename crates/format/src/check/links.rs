//! Checks of links between blobs: parents, and the internal xattrs that name them.

use super::Finding;
use crate::ids::BlobId;
use crate::metadata::{Parent, internal};
use crate::store::{Blob, Store};

/// Parents, of any generation, that are missing or in circles.
pub(super) fn findings(store: &Store) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Roots of the forest first, each with the parent that it misses, then everything below them: a blob never reached
    // is in or below a circle.
    let mut reached: Vec<(BlobId, Option<BlobId>)> = Vec::new();
    for blob in store.blobs.values() {
        match blob.parent {
            Some(Parent::Snapshot(parent)) if store.blob(parent).is_some() => {}
            Some(Parent::Snapshot(parent)) => reached.push((blob.id, Some(parent))),
            Some(Parent::External(_)) | None => reached.push((blob.id, None)),
        }
    }
    let mut at = 0;
    while let Some(&(id, missing)) = reached.get(at) {
        let clones = store.blob(id).into_iter().flat_map(|blob| blob.clones.iter());
        reached.extend(clones.map(|&clone| (clone, missing)));
        at += 1;
    }
    reached.sort();
    let orphan = |&(blob, missing)| Some(Finding::OrphanedClone { blob, parent: missing? });
    findings.extend(reached.iter().filter_map(orphan));
    let is_reached = |id: &BlobId| reached.binary_search_by_key(id, |(blob, _)| *blob).is_ok();
    let unreached = store.blobs.keys().filter(|id| !is_reached(id));
    findings.extend(unreached.map(|&blob| Finding::ParentCircle { blob }));
    findings
}

/// Internal xattrs that link the blob to nothing.
pub(super) fn dead(blob: &Blob) -> Vec<Finding> {
    let (metadata, mut findings) = (&blob.metadata, Vec::new());
    let mut say = |xattr, why| findings.push(Finding::DeadLink { blob: blob.id, xattr, why });
    let holds = |name: &[u8]| metadata.internal.get(name).is_some();
    for (name, shown) in
        [(internal::SNAPSHOT_IN_PROGRESS, "SNAPTMP"), (internal::SNAPSHOT_PENDING_REMOVAL, "SNAPRM")]
    {
        if holds(name) && metadata.internal_id(name).is_none() {
            say(shown, "is not the 8 bytes of a blob id");
        }
    }
    // Besides these, SPDK leaves xattrs that it ignores: `SNAP` in a clone of an external snapshot, `EXTSNAP`
    // in a clone that was inflated while it was read-only.
    let flags = &metadata.flags;
    if holds(internal::SNAPSHOT) && !flags.external_snapshot() && !flags.thin() {
        say("SNAP", "names a parent, but the blob is not thin and has none");
    }
    if holds(internal::EXTERNAL_SNAPSHOT_ID) && !flags.external_snapshot() && flags.thin() {
        say("EXTSNAP", "names a parent outside the store, but the flags say that there is none");
    }
    findings
}
