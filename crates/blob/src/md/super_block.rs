//! Writes the super block: the dirty mark, the super blob, and larger changes.

use spindle_format::{BlobId, SuperBlock};

use super::metadata::Md;
use crate::error::BlobError;
use crate::ordering::Point;

impl Md {
    /// Marks the masks on disk as not to be trusted, before the first change.
    pub(crate) async fn mark_dirty(&self) -> Result<(), BlobError> {
        self.check_writable()?;
        if !self.clean_on_disk.get() {
            return Ok(());
        }
        if self.found.recovered {
            // A clean store with unusable masks could not be unloaded cleanly again, and its clean mark is
            // part of what distinguishes damage from a crash.
            self.check_allocation()?;
        }
        let _guard = self.marking.lock().await;
        self.check_writable()?;
        if !self.clean_on_disk.get() {
            return Ok(());
        }
        self.super_block.borrow_mut().clean = false;
        self.write_super_block().await?;
        self.flush_for(&[Point::DirtyBeforeChange]).await?;
        self.clean_on_disk.set(false);
        Ok(())
    }

    /// Writes the super block with this super blob.
    pub(crate) async fn write_super_blob(&self, blob: Option<BlobId>) -> Result<(), BlobError> {
        let _guard = self.marking.lock().await;
        self.super_block.borrow_mut().super_blob = blob;
        self.write_super_block().await
    }

    /// Writes the super block from memory. The caller has held [`Md::marking`] since before its change: of
    /// two concurrent writes the older might remain on the disk, and a load recognises a torn super block only
    /// if it differs by a single change.
    pub(crate) async fn write_super_block(&self) -> Result<(), BlobError> {
        let change = self.super_block.borrow().write(&self.geometry.borrow());
        self.apply(&change).await.inspect_err(|error| self.poison(error))
    }

    /// Overwrites the super block on disk with another one, durably. If the write can tear, the torn block
    /// must stay recognisable, whatever has changed.
    pub(crate) async fn change_super_block(
        &self,
        next: impl FnOnce(&SuperBlock) -> SuperBlock,
    ) -> Result<(), BlobError> {
        let _guard = self.marking.lock().await;
        let next = next(&self.super_block.borrow());
        let sector = self.local.channel().geometry().block_size();
        let change = match self.tears_pages() {
            false => next.write(&self.geometry.borrow()),
            true => {
                let now = self.super_block.borrow().clone();
                let [noted, change] = now.change_to(&next, sector, &self.geometry.borrow());
                self.apply(&noted).await.inspect_err(|error| self.poison(error))?;
                self.flush_for(&[Point::SectorBySector]).await?;
                change
            }
        };
        self.apply(&change).await.inspect_err(|error| self.poison(error))?;
        *self.super_block.borrow_mut() = next;
        self.flush_for(&[Point::DurableBeforeAck]).await
    }
}
