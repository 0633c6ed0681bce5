//! What to write so that a store is in order again, as far as that needs no guessing.
//!
//! Worked out on an overlay in memory and told as changes: nothing is written here. What a program that
//! carries them out overwrites is metadata only; clusters that become free keep what they hold, so that all
//! of it can be undone.

use std::collections::BTreeSet;

use super::overlay::Overlay;
use super::{Finding, Medium, examine, load};
use crate::chain;
use crate::change::Change;
use crate::ids::{BlobId, PageIdx};
use crate::loader::LoadError;
use crate::metadata::{BlobMetadata, Flags, Parent, internal};
use crate::page::Page;
use crate::store::{Blob, Store};
use crate::super_block::SuperBlock;
use crate::unload::{self, InUse};

/// What a repair does, and what it leaves.
#[derive(Debug)]
pub struct Mended {
    /// The writes, in order, with flushes where the order matters. None if nothing can be mended.
    pub changes: Vec<Change>,
    /// What is wrong now.
    pub before: Vec<Finding>,
    /// What will still be wrong.
    pub after: Vec<Finding>,
}

/// Why a repair cannot be worked out.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// The store cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A blob that is to be given up is not there.
    #[error("blob {0} cannot be given up: it is not in the store")]
    NoSuchBlob(BlobId),
    /// A blob that is to be given up has clones.
    #[error("blob {0} cannot be given up: blob {1} reads through it; give that up too, or inflate it first")]
    HasClones(BlobId, BlobId),
}

/// Works out a repair. The blobs in `give_up` are deleted, whatever state they are in.
///
/// # Errors
/// The store cannot be loaded, or a blob cannot be given up.
pub fn mend(medium: &dyn Medium, give_up: &BTreeSet<BlobId>) -> Result<Mended, MendError> {
    let examined = examine(medium)?;
    let (store, before) = (examined.store, examined.findings);
    let all = examined.without_masks.as_ref().unwrap_or(&store);
    check_given_up(&store, all, give_up)?;
    if before.is_empty() && give_up.is_empty() && store.super_block.clean {
        return Ok(Mended { changes: Vec::new(), before, after: Vec::new() });
    }
    let geometry = store.geometry.clone();
    let (start, len) = geometry.bytes_of(geometry.metadata());
    let mut overlay = Overlay::new(medium, start + len);

    // Whatever a crash leaves of the rest, the next load reads all metadata.
    let dirty = SuperBlock { clean: false, ..store.super_block.clone() };
    overlay.apply([dirty.write(&geometry), Change::Flush]);
    for id in give_up {
        overlay.apply(id.root_page().map(|root| Page::clear(root, &geometry)));
        overlay.apply([Change::Flush]);
    }
    let repaired = load(&overlay, true)?;
    for repair in &repaired.repairs {
        overlay.apply(repair.changes.iter().cloned().chain([Change::Flush]));
    }
    let mut found = load(&overlay, true)?;
    // A root that is gone leaves no trace but in the masks.
    let gone = store.damaged.iter().any(|damaged| !give_up.contains(&damaged.id));
    if !gone && !is_lost(&found) {
        mend_blobs(&mut overlay, &found);
        found = load(&overlay, true)?;
        let super_block = SuperBlock { super_blob: super_blob(&found), ..found.super_block.clone() };
        let (pages, blob_ids) = (&found.used_pages, &found.used_blob_ids);
        let in_use = InUse { pages, blob_ids, clusters: &found.used_clusters };
        overlay.apply(unload::changes(&super_block, &geometry, in_use));
    } else if store.super_block.clean && give_up.is_empty() && store.repairs.is_empty() {
        // Nothing can be done, and the masks tell what the lost blobs hold: all stays as it is.
        return Ok(Mended { changes: Vec::new(), after: before.clone(), before });
    }
    if overlay.is_as_before() {
        return Ok(Mended { changes: Vec::new(), after: before.clone(), before });
    }
    let after = examine(&overlay)?.findings;
    Ok(Mended { changes: overlay.into_changes(), before, after })
}

fn check_given_up(store: &Store, all: &Store, give_up: &BTreeSet<BlobId>) -> Result<(), MendError> {
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
        if let Some(clone) = clone {
            return Err(MendError::HasClones(id, clone.id));
        }
    }
    Ok(())
}

/// Whether something may be in use of which nobody knows what it is: then nothing may be counted as free.
fn is_lost(store: &Store) -> bool {
    let orphan = |blob: &Blob| matches!(blob.parent, Some(Parent::Snapshot(id)) if store.blob(id).is_none());
    store.allocation_blocked.is_some() || !store.damaged.is_empty() || store.blobs.values().any(orphan)
}

/// The super blob, if it is there.
fn super_blob(store: &Store) -> Option<BlobId> {
    store.super_block.super_blob.filter(|&id| store.blob(id).is_some())
}

/// Rewrites the chains of blobs that say something wrong of themselves. Blobs with descriptors that are not
/// known stay: they would lose them.
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

/// What the blob should say of itself.
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
