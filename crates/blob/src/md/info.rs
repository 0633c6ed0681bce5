//! Queries about a store and its blobs, and small changes: xattrs, sync, the super blob.

use std::ops::Bound;
use std::rc::Rc;

use spindle_format::super_block::BsType;
use spindle_format::{BlobId, BlobMetadata, SuperBlock};

use super::blob_state::BlobState;
use super::metadata::Md;
use super::persist::Persist;
use crate::error::BlobError;
use crate::options::{BlobInfo, StoreInfo};
use crate::ordering::Point;

impl Md {
    pub(crate) fn info(&self) -> StoreInfo {
        let geometry = self.geometry.borrow();
        let space = self.space.borrow();
        let super_block = self.super_block.borrow();
        StoreInfo {
            cluster_size: self.shared.cluster_size,
            io_unit_size: self.shared.io_unit,
            data_clusters: geometry.data_clusters(),
            free_clusters: self.free_clusters() as u32,
            clearing_bytes: u64::from(space.stale_clusters()) * u64::from(self.shared.cluster_size),
            max_growable_size: geometry.max_growable_size(),
            md_page_size: geometry.md_page_size(),
            md_pages: geometry.md_pages(),
            used_md_pages: self.used_pages(),
            bs_type: super_block.bs_type,
            super_blob: super_block.super_blob,
            map_leaves: self.shared.arena.in_use(),
            refuses_changes: self.refuses_changes(),
            recovered: self.found.recovered,
            damaged: self.found.damaged.keys().copied().collect(),
        }
    }

    /// The blobs, in the order of their ids, which is the order of their roots.
    pub(crate) fn list(&self) -> Vec<BlobId> {
        self.blobs.borrow().keys().copied().collect()
    }

    pub(crate) fn next(&self, after: Option<BlobId>) -> Option<BlobId> {
        let blobs = self.blobs.borrow();
        match after {
            Some(after) => blobs.range((Bound::Excluded(after), Bound::Unbounded)).next(),
            None => blobs.first_key_value(),
        }
        .map(|(&id, _)| id)
    }

    pub(crate) fn blob_info(&self, id: BlobId) -> Result<BlobInfo, BlobError> {
        let blob = self.blob(id)?;
        let meta = blob.meta.borrow();
        Ok(BlobInfo {
            id,
            clusters: meta.map.num_clusters(),
            allocated: meta.map.allocated(),
            thin: meta.flags.thin(),
            read_only: meta.flags.data_locked(),
            clear_method: meta.flags.clear_method(),
            parent: blob.parent(),
            clones: blob.clones.borrow().clone(),
            degraded: self.is_degraded(&blob),
        })
    }

    pub(crate) async fn set_super_blob(&self, blob: Option<BlobId>) -> Result<(), BlobError> {
        let _guard = self.exclusive().await?;
        if let Some(blob) = blob {
            self.blob(blob)?;
        }
        if self.super_block.borrow().super_blob == blob {
            return Ok(());
        }
        self.write_super_blob(blob).await?;
        self.flush_for(&[Point::DurableBeforeAck]).await
    }

    /// Sets the store's type.
    pub(crate) async fn set_bs_type(&self, bs_type: BsType) -> Result<(), BlobError> {
        self.check_writable()?;
        let _guard = self.exclusive().await?;
        if self.super_block.borrow().bs_type == bs_type {
            return Ok(());
        }
        self.change_super_block(|now| SuperBlock { bs_type, ..now.clone() }).await
    }

    /// Makes a blob read-only, once no write to it is under way.
    pub(crate) async fn set_read_only(&self, blob: &Rc<BlobState>) -> Result<(), BlobError> {
        let _frozen = self.freeze(blob).await;
        let _guard = self.exclusive_on(blob).await?;
        self.check_writable()?;
        if blob.flags().read_only() {
            return Ok(());
        }
        blob.check_metadata()?;
        let mut meta = blob.meta.borrow().clone();
        meta.flags.data_read_only |= spindle_format::Flags::READ_ONLY;
        let edits = blob.edits.get();
        self.persist(blob, meta, Persist::default()).await?;
        blob.synced.set(edits);
        blob.publish_flags();
        Ok(())
    }

    /// Changes a blob's metadata in memory; [`Md::sync`] brings it to disk.
    pub(crate) fn edit<R>(
        &self,
        blob: &BlobState,
        edit: impl FnOnce(&mut BlobMetadata) -> Result<R, BlobError>,
    ) -> Result<R, BlobError> {
        self.check_writable()?;
        blob.check_metadata()?;
        let result = edit(&mut blob.meta.borrow_mut())?;
        blob.edits.update(|edits| edits + 1);
        Ok(result)
    }

    /// Writes changes that were made in memory.
    pub(crate) async fn sync(&self, blob: &Rc<BlobState>) -> Result<(), BlobError> {
        let _guard = self.exclusive_on(blob).await?;
        self.write_edits(blob).await
    }

    /// The same for all blobs, as far as it can be done, in a store that may be changed. Called under [`Md::lock`].
    pub(crate) async fn write_all_edits(&self) -> Result<(), BlobError> {
        if self.check_writable().is_err() {
            return Ok(());
        }
        let unsynced: Vec<Rc<BlobState>> =
            self.blobs.borrow().values().filter(|blob| blob.is_unsynced()).cloned().collect();
        let mut result = Ok(());
        for blob in unsynced {
            let written = self.write_edits(&blob).await;
            result = result.and(written);
        }
        result
    }

    /// Called under [`Md::lock`].
    async fn write_edits(&self, blob: &BlobState) -> Result<(), BlobError> {
        if !blob.is_unsynced() {
            return Ok(());
        }
        let meta = blob.meta.borrow().clone();
        // Changes from here on are not in `meta` and wait for the next sync.
        let edits = blob.edits.get();
        let how = Persist { changes: Some(Vec::new()), ..Persist::default() };
        self.persist(blob, meta, how).await?;
        blob.synced.set(edits);
        Ok(())
    }
}
