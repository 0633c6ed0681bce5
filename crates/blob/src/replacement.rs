//! New contents of a blob that replace the old ones in one step.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use spindle_mem::Buffers;

use crate::blob::Blob;
use crate::error::BlobError;
use crate::md::{Draft, Md, on_md};
use crate::options::BlobOpenOptions;
use crate::shared::StoreLocal;
use crate::waiting::{TaskLock, locked};

/// New contents of a blob, written to clusters that nothing on disk names, until [`commit`](Self::commit)
/// makes them the blob's contents with one write of its root page. Until then, and after a crash before that,
/// the blob has its old contents; afterwards it has what was written here, and zeroes elsewhere. Id, name,
/// xattrs, size and parent stay.
///
/// Takes as many clusters as are written to; a thick blob gets one for each of its places at the commit.
/// Dropping it gives them back, and [`abandon`](Self::abandon) waits for that. It is a separate opening of
/// the blob, independent of the handle that made it, and stays on its thread.
pub struct Replacement {
    /// A separate opening: while it exists the store is not left.
    blob: Blob,
    local: Rc<StoreLocal>,
    draft: Arc<Mutex<Draft>>,
    /// Held while a cluster is taken and prepared.
    taking: TaskLock,
}

impl Blob {
    /// Begins new contents that replace the old ones in one step. Needs the current Spindle thread.
    ///
    /// # Errors
    /// The blob is closed or read-only, clones read through it, or it is being inflated or decoupled.
    pub async fn replace(&self) -> Result<Replacement, BlobError> {
        let store = self.opened.store.clone();
        let opened = self.on_md(async move |md, blob| {
            md.check_replaceable(&blob)?;
            md.open(blob.id, BlobOpenOptions::default(), store).await
        });
        let blob = Blob::new(opened.await?);
        let local = self.opened.shared.store.local()?;
        Ok(Replacement { blob, local, draft: Arc::default(), taking: TaskLock::default() })
    }
}

impl Replacement {
    /// Stores `buffers` from byte `offset` of the new contents on, over earlier writes; of two concurrent
    /// writes of the same bytes either may remain.
    ///
    /// # Errors
    /// The range is not inside the blob or not aligned, the store is out of space, or the device fails. After
    /// an error, and if the future was dropped, [`commit`](Self::commit) is refused.
    pub async fn write(&self, offset: u64, buffers: impl Into<Buffers>) -> Result<(), BlobError> {
        let mut buffers = buffers.into();
        let len = buffers.len() as u64;
        let store = &self.blob.opened.shared.store;
        let (unit, size) = (u64::from(store.io_unit), u64::from(store.cluster_size));
        let blob = self.blob.id();
        if !offset.is_multiple_of(unit) || !len.is_multiple_of(unit) {
            return Err(BlobError::Unaligned { blob, offset, len, unit: store.io_unit });
        }
        if offset.checked_add(len).is_none_or(|end| end > self.blob.size()) {
            return Err(BlobError::OutOfRange { blob, offset, len, size: self.blob.size() });
        }
        locked(&self.draft).unfinished += 1;
        let mut at = offset;
        while !buffers.is_empty() {
            let within = at % size;
            let rest = buffers.split_off((size - within).min(buffers.len() as u64) as usize);
            let piece = std::mem::replace(&mut buffers, rest);
            let len = piece.len() as u64;
            let cluster = self.cluster(at / size, len == size).await?;
            let (written, _) = self.local.channel().write(u64::from(cluster) * size + within, piece).await;
            written?;
            at += len;
        }
        locked(&self.draft).unfinished -= 1;
        Ok(())
    }

    /// Makes the written contents those of the blob, durably. Runs to its end even if the future is dropped.
    ///
    /// # Errors
    /// A write has failed or was dropped, the blob has become smaller or read-only or has got clones, the
    /// store is out of space or metadata pages, or the device fails. The blob then has its old contents,
    /// unless a write or flush of metadata failed: after that only a load can tell.
    pub async fn commit(self) -> Result<(), BlobError> {
        let clusters = {
            let mut draft = locked(&self.draft);
            if draft.unfinished > 0 {
                let why = "a write of its new contents failed or was given up: begin again";
                return Err(BlobError::Refused { blob: self.blob.id(), why });
            }
            draft.over = true;
            std::mem::take(&mut draft.clusters)
        };
        let opened = self.blob.opened.clone();
        // Not run as an operation on the blob, so that a closed blob gives the clusters back too.
        on_md(&self.blob.opened.shared.store, async move |md| match opened.state(&md) {
            Ok(blob) => {
                drop(opened);
                md.replace(&blob, clusters).await
            }
            Err(error) => {
                md.release_draft(clusters.into_values().collect()).await;
                Err(error)
            }
        })
        .await
    }

    /// Gives its clusters back, and returns when that is done. The blob keeps its contents.
    ///
    /// # Errors
    /// The store was unloaded.
    pub async fn abandon(self) -> Result<(), BlobError> {
        let clusters = self.end();
        self.local.quiesce().await;
        on_md(&self.blob.opened.shared.store, async move |md| {
            md.release_draft(clusters).await;
            Ok(())
        })
        .await
    }

    /// Ends it; returns its clusters.
    fn end(&self) -> Vec<u32> {
        let mut draft = locked(&self.draft);
        draft.over = true;
        std::mem::take(&mut draft.clusters).into_values().collect()
    }

    /// The cluster for a place of the blob, taken if there is none. It reads zero, unless all of it will be
    /// written next.
    async fn cluster(&self, index: u64, whole: bool) -> Result<u32, BlobError> {
        let _taking = self.taking.lock().await;
        if let Some(&cluster) = locked(&self.draft).clusters.get(&index) {
            return Ok(cluster);
        }
        let draft = self.draft.clone();
        let taken =
            self.blob.on_md(async move |md, blob| md.take_for_draft(&blob, index, &draft).await).await?;
        if !taken.is_zero && !whole {
            let shared = &self.blob.opened.shared;
            let (start, size) = (shared.start_of(taken.cluster), u64::from(shared.store.cluster_size));
            // A thin blob takes no space for what it does not hold.
            match shared.thin.load(Ordering::Acquire) {
                true => self.local.clear(start, size).await?,
                false => self.local.write_zeroes(start, size).await?,
            }
        }
        Ok(taken.cluster)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        let clusters = self.end();
        if clusters.is_empty() {
            return;
        }
        let shared = self.blob.opened.shared.clone();
        let give_back = move || {
            // If the metadata thread is gone, so is the store.
            let _ = shared.store.md.clone().send_msg(move || {
                if let Ok(md) = Md::of(&shared.store) {
                    md.drop_draft(clusters);
                }
            });
        };
        if locked(&self.draft).unfinished == 0 {
            return give_back();
        }
        // A dropped write may still be under way: the store is not left before it has ended.
        let (local, blob) = (self.local.clone(), self.blob.clone());
        drop(spindle_reactor::spawn_local(async move {
            local.quiesce().await;
            give_back();
            drop(blob);
        }));
    }
}

impl std::fmt::Debug for Replacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replacement({:?}, {} clusters)", self.blob, locked(&self.draft).clusters.len())
    }
}
