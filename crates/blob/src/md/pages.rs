//! Writes metadata: the device's commands, flushes by name, and whole pages.

use spindle_format::page::{PAGE_SIZE, Page};
use spindle_format::{Change, PageIdx};
use spindle_mem::IoBuf;

use super::metadata::Md;
use crate::error::BlobError;
use crate::ordering::Point;

impl Md {
    /// True if the device can tear a page, so that a rewrite in place needs a copy.
    pub(crate) fn tears_pages(&self) -> bool {
        (self.local.channel().geometry().atomic_unit() as usize) < PAGE_SIZE
    }

    /// Flushes, if the store keeps any of these ordering points.
    pub(crate) async fn flush_for(&self, points: &[Point]) -> Result<(), BlobError> {
        if !points.iter().any(|&point| self.options.order.keeps(point)) {
            return Ok(());
        }
        self.flushes.flush(&self.local, &self.shared).await
    }

    /// Writes bytes, a whole number of blocks.
    pub(crate) async fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), BlobError> {
        let (result, _buffers) = self.local.channel().write(offset, IoBuf::copy_from(bytes)).await;
        result.map_err(BlobError::from)
    }

    /// Carries out a change that is not a flush.
    pub(crate) async fn apply(&self, change: &Change) -> Result<(), BlobError> {
        match change {
            Change::Write { offset, bytes } => self.write_bytes(*offset, bytes).await?,
            Change::Zero { offset, len } => self.local.write_zeroes(*offset, *len).await?,
            // The device may ignore an unmap.
            Change::Unmap { offset, len } => self.local.unmap(*offset, *len).await.map(drop)?,
            Change::Flush => self.flushes.flush(&self.local, &self.shared).await?,
        }
        Ok(())
    }

    /// Carries out a list of changes in order; the last flush is named `last`, those before it `point`. A
    /// failure poisons the store.
    pub(crate) async fn apply_all(
        &self,
        changes: &[Change],
        point: Point,
        last: Point,
    ) -> Result<(), BlobError> {
        let end = changes.iter().rposition(|change| matches!(change, Change::Flush));
        for (at, change) in changes.iter().enumerate() {
            let done = match change {
                Change::Flush => self.flush_for(&[if Some(at) == end { last } else { point }]).await,
                change => self.apply(change).await,
            };
            done.inspect_err(|error| self.poison(error))?;
        }
        Ok(())
    }

    /// Writes a page into its slot; the rest of a larger slot is zeroed.
    pub(crate) async fn write_page(&self, at: PageIdx, page: &Page) -> Result<(), BlobError> {
        let (offset, size) = {
            let geometry = self.geometry.borrow();
            (geometry.page_offset(at), geometry.md_page_size() as usize)
        };
        let mut slot = IoBuf::zeroed(size);
        slot[..PAGE_SIZE].copy_from_slice(page.bytes());
        let (result, _buffers) = self.local.channel().write(offset, slot).await;
        result.map_err(BlobError::from)
    }

    /// Clears pages.
    pub(crate) async fn clear_pages(
        &self,
        pages: impl IntoIterator<Item = PageIdx>,
    ) -> Result<(), BlobError> {
        for page in pages {
            let change = Page::clear(page, &self.geometry.borrow());
            self.apply(&change).await.inspect_err(|error| self.poison(error))?;
        }
        Ok(())
    }

    pub(crate) fn no_pages(&self, needed: u64) -> BlobError {
        let free = u64::from(self.space.borrow().free_pages(false));
        BlobError::OutOfMetadata { store: self.shared.name.clone(), needed, free }
    }

    pub(crate) fn no_space(&self, needed: u64) -> BlobError {
        let free = self.free_clusters();
        BlobError::OutOfSpace { store: self.shared.name.clone(), needed, free }
    }
}
