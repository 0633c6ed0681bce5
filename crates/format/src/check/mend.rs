//! Works out the writes that repair a store, without guessing.
//!
//! Worked out on an overlay in memory and returned as changes: nothing is written here. The changes overwrite
//! metadata only; freed clusters keep their contents, so that everything can be undone.

use std::collections::{BTreeMap, BTreeSet};

use super::overlay::{ChangedPage, Overlay};
use super::{Examination, Finding, Medium, examine, load};
use crate::chain;
use crate::change::Change;
use crate::ids::{BlobId, PageIdx};
use crate::loader::LoadError;
use crate::mask::{self, MaskKind};
use crate::metadata::{BlobMetadata, Flags, Parent, internal};
use crate::page::Page;
use crate::repair::{Repair, RepairReason};
use crate::store::{AllocationBlocked, Blob, Store};
use crate::super_block::SuperBlock;
use crate::unload::{self, InUse};

/// The most rounds of a repair. Each one but the last repairs something permanently.
const MOST_ROUNDS: u32 = 8;

/// The effect of a repair.
#[derive(Debug)]
pub struct Mended {
    /// The writes, in order, with flushes where the order matters. Empty if nothing can be repaired.
    pub changes: Vec<Change>,
    /// What they change, by the bytes of the medium where it begins, multiples of 4096.
    pub pages: BTreeMap<u64, ChangedPage>,
    /// The findings before.
    pub before: Vec<Finding>,
    /// The remaining findings.
    pub after: Vec<Finding>,
}

/// Why a repair is impossible.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// The store cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A blob to be given up does not exist.
    #[error("blob {0} cannot be given up: it is not in the store")]
    NoSuchBlob(BlobId),
    /// A blob to be given up has clones.
    #[error("blob {0} cannot be given up: blob {1} reads through it; give that up too, or inflate it first")]
    HasClones(BlobId, BlobId),
}

/// Works out a repair. The blobs in `give_up` are deleted, in any state.
///
/// Damage that cannot be repaired stays as it is, and is found again: a cleanly unloaded store stays clean, with
/// masks that still name what is damaged, and another one stays dirty.
///
/// # Errors
/// The store cannot be loaded, or a blob cannot be given up.
pub fn mend(medium: &dyn Medium, give_up: &BTreeSet<BlobId>) -> Result<Mended, MendError> {
    let examined = examine(medium)?;
    check_given_up(&examined, give_up)?;
    let before = examined.findings.clone();
    let (mut overlay, mut examined) = (Overlay::new(medium, end_of_metadata(&examined.store)), examined);
    let (mut give_up, nothing) = (give_up, BTreeSet::new());
    // One repair may make another possible.
    for _ in 0..MOST_ROUNDS {
        let Some(changes) = round(&overlay, &examined, give_up)? else { break };
        overlay.apply(changes);
        examined = examine(&overlay)?;
        give_up = &nothing;
    }
    let after = examined.findings;
    let (changes, pages) = overlay.into_parts();
    Ok(Mended { changes, pages, before, after })
}

/// What can be done for a store as it is; `None` if there is nothing to do.
fn round(
    medium: &dyn Medium,
    examined: &Examination,
    give_up: &BTreeSet<BlobId>,
) -> Result<Option<Vec<Change>>, MendError> {
    let Examination { store, without_masks, findings } = examined;
    if findings.is_empty() && give_up.is_empty() && store.super_block.clean {
        return Ok(None);
    }
    let all = without_masks.as_ref().unwrap_or(store);
    let start = without(medium, store, all, give_up)?;
    let overlay = match mend_all(start.clone(), store, give_up)? {
        Some(overlay) => overlay,
        None => mend_around(start, store, findings, give_up)?,
    };
    if overlay.is_as_before() {
        return Ok(None);
    }
    // After a crash in the rest, the next load reads all metadata.
    let dirty = SuperBlock { clean: false, ..store.super_block.clone() };
    let changes = [dirty.write(&store.geometry), Change::Flush].into_iter().chain(overlay.into_changes());
    Ok(Some(changes.collect()))
}

/// The first byte of the image after its metadata.
fn end_of_metadata(store: &Store) -> u64 {
    let (start, len) = store.geometry.bytes_of(store.geometry.metadata());
    start + len
}

/// The store completely repaired, with masks that match its metadata, except for a resize that no metadata page is
/// free to finish, which a later load does; `None` if that is impossible, since something is lost or damaged.
fn mend_all<'a>(
    mut overlay: Overlay<'a>,
    store: &Store,
    give_up: &BTreeSet<BlobId>,
) -> Result<Option<Overlay<'a>>, LoadError> {
    // A missing root leaves no trace except in the masks.
    if store.damaged.iter().any(|damaged| !give_up.contains(&damaged.id)) {
        return Ok(None);
    }
    let repaired = load(&overlay, true)?;
    carry_out(&mut overlay, &repaired);
    let found = load(&overlay, true)?;
    if is_lost(&found) {
        return Ok(None);
    }
    mend_blobs(&mut overlay, &found);
    // What a marker kept from being done can be done now that it is gone.
    let unblocked = load(&overlay, true)?;
    carry_out(&mut overlay, &unblocked);
    let found = load(&overlay, true)?;
    if found.repairs.iter().any(Repair::leaves_resize) {
        return Ok(Some(overlay));
    }
    let super_block = SuperBlock { super_blob: super_blob(&found), ..found.super_block.clone() };
    overlay.apply(unload::changes(&super_block, &store.geometry, in_use(&found)));
    Ok(Some(overlay))
}

/// The store with interrupted operations finished, and the rest as it was.
fn mend_around<'a>(
    mut overlay: Overlay<'a>,
    store: &Store,
    before: &[Finding],
    give_up: &BTreeSet<BlobId>,
) -> Result<Overlay<'a>, LoadError> {
    let Some(masks) = &store.disk_masks else {
        // What is in use is unknown here, and the mark of a clean unload must be preserved.
        if !store.super_block.clean {
            let repaired = load(&overlay, true)?;
            carry_out(&mut overlay, &repaired);
        } else if !give_up.is_empty() {
            overlay.apply([Change::Flush, store.super_block.write(&store.geometry), Change::Flush]);
        }
        return Ok(overlay);
    };
    if !give_up.is_empty() {
        let mut blob_ids = masks.used_blob_ids.clone();
        give_up.iter().filter_map(|id| id.root_page()).for_each(|root| {
            blob_ids.clear(root.0);
        });
        let writes = mask::writes(MaskKind::UsedBlobIds, &store.geometry);
        let write = |number| mask::write(MaskKind::UsedBlobIds, number, &blob_ids, &store.geometry);
        overlay.apply((0..writes).map(write));
    }
    let repaired = load(&overlay, false)?;
    let unmarked = before.iter().any(|finding| matches!(finding, Finding::UnmarkedInMask { .. }));
    if give_up.is_empty() && repaired.repairs.is_empty() && !unmarked {
        return Ok(overlay);
    }
    carry_out(&mut overlay, &repaired);
    // Like a load that writes and unloads cleanly: the mask bits of what is damaged stay.
    overlay.apply(unload::changes(&store.super_block, &store.geometry, in_use(&repaired)));
    Ok(overlay)
}

/// Clears the roots of these blobs. A root stays if another blob could not be read without it: a page that
/// looks like a damaged root may be a page of that blob, even if that blob is readable only with the masks
/// ignored, or only the chain on disk names the page, because a resize was cut off.
fn without<'a>(
    medium: &'a dyn Medium,
    store: &Store,
    all: &Store,
    give_up: &BTreeSet<BlobId>,
) -> Result<Overlay<'a>, LoadError> {
    let mut overlay = Overlay::new(medium, end_of_metadata(store));
    let stays = |before: &Store, now: &Store| {
        before.blobs.keys().all(|id| give_up.contains(id) || now.blob(*id).is_some())
    };
    for root in give_up.iter().filter_map(|id| id.root_page()) {
        let mut without = overlay.clone();
        without.apply([Page::clear(root, &store.geometry), Change::Flush]);
        if stays(store, &load(&without, false)?) && stays(all, &load(&without, true)?) {
            overlay = without;
        }
    }
    Ok(overlay)
}

/// Makes the repairs of the next writing load; the store is marked dirty already.
fn carry_out(overlay: &mut Overlay<'_>, store: &Store) {
    let repairs = store.repairs.iter().filter(|repair| repair.reason != RepairReason::MarkDirty);
    for repair in repairs {
        overlay.apply(repair.changes.iter().cloned().chain([Change::Flush]));
    }
}

fn in_use(store: &Store) -> InUse<'_> {
    InUse { pages: &store.used_pages, blob_ids: &store.used_blob_ids, clusters: &store.used_clusters }
}

fn check_given_up(examined: &Examination, give_up: &BTreeSet<BlobId>) -> Result<(), MendError> {
    let store = &examined.store;
    let all = examined.without_masks.as_ref().unwrap_or(store);
    for &id in give_up {
        let known =
            |store: &Store| store.blob(id).is_some() || store.damaged.iter().any(|damaged| damaged.id == id);
        if !known(store) && !known(all) {
            return Err(MendError::NoSuchBlob(id));
        }
        let clone = all
            .blobs
            .values()
            .find(|blob| blob.parent == Some(Parent::Snapshot(id)) && !give_up.contains(&blob.id));
        let clone = clone.map(|clone| clone.id).or_else(|| damaged_clone(store, id, give_up));
        if let Some(clone) = clone {
            return Err(MendError::HasClones(id, clone));
        }
    }
    Ok(())
}

/// A damaged blob that names this one and stays.
fn damaged_clone(store: &Store, id: BlobId, give_up: &BTreeSet<BlobId>) -> Option<BlobId> {
    let mut damaged = store.damaged.iter().filter(|damaged| !give_up.contains(&damaged.id));
    damaged.find(|damaged| damaged.named_blobs.contains(&id)).map(|damaged| damaged.id)
}

/// True if something unknown may be in use: then nothing may be counted as free.
fn is_lost(store: &Store) -> bool {
    let orphan = |blob: &Blob| matches!(blob.parent, Some(Parent::Snapshot(id)) if store.blob(id).is_none());
    let unknown = |blocked: &AllocationBlocked| {
        let AllocationBlocked { blobs, pages, clusters, extent_pages, .. } = blocked;
        !(blobs.is_empty() && pages.is_empty() && clusters.is_empty() && extent_pages.is_empty())
    };
    store.allocation_blocked.as_ref().is_some_and(unknown)
        || !store.damaged.is_empty()
        || store.blobs.values().any(orphan)
}

/// The super blob, if it exists.
fn super_blob(store: &Store) -> Option<BlobId> {
    store.super_block.super_blob.filter(|&id| store.blob(id).is_some())
}

/// Rewrites the chains of blobs with inconsistent metadata. Blobs with unknown descriptors stay: a rewrite
/// would lose those.
fn mend_blobs(overlay: &mut Overlay<'_>, store: &Store) {
    let mut taken = store.used_pages.clone();
    for blob in store.blobs.values().filter(|blob| blob.unknown_descriptors.is_empty()) {
        let mut meta = blob.metadata.clone();
        put_right(&mut meta, blob, store);
        if meta == blob.metadata {
            continue;
        }
        let mut pages = chain::to_pages(blob.id, &meta);
        let mut at = vec![blob.chain[0]];
        while at.len() < pages.len() {
            let Some(free) = taken.first_clear(1) else { break };
            taken.set(free);
            at.push(PageIdx(free));
        }
        if at.len() < pages.len() {
            continue;
        }
        chain::link(&mut pages, &at);
        let writes = at.iter().zip(&pages).map(|(&at, page)| page.write(at, &store.geometry));
        let mut writes: Vec<Change> = writes.collect();
        let root = writes.remove(0);
        overlay.apply(writes.into_iter().chain([Change::Flush, root, Change::Flush]));
        overlay.apply(blob.chain[1..].iter().map(|&old| Page::clear(old, &store.geometry)));
    }
}

/// Corrects the blob's metadata.
fn put_right(meta: &mut BlobMetadata, blob: &Blob, store: &Store) {
    if !blob.clones.is_empty() {
        meta.flags.data_read_only |= Flags::READ_ONLY;
    }
    if meta.map.num_clusters() > 0 {
        match meta.map.is_table() {
            true => meta.flags.invalid |= Flags::EXTENT_TABLE,
            false => meta.flags.invalid &= !Flags::EXTENT_TABLE,
        }
    }
    for name in [internal::SNAPSHOT_IN_PROGRESS, internal::SNAPSHOT_PENDING_REMOVAL] {
        let unresolved = store.half_done.iter().any(|half| half.snapshot == blob.id);
        if meta.internal.get(name).is_some() && (unresolved || meta.internal_id(name).is_none()) {
            meta.remove_internal(name);
        }
    }
    if meta.flags.external_snapshot() || !meta.flags.thin() {
        meta.remove_internal(internal::SNAPSHOT);
    }
    if !meta.flags.external_snapshot() {
        meta.remove_internal(internal::EXTERNAL_SNAPSHOT_ID);
    }
}
