//! Deletes a snapshot where there are no metadata pages for new parts of its clone's map: what the clone takes over
//! goes into the extent pages that it has.
//!
//! SPDK always does it this way, so its format has a mark for it: while the snapshot carries the mark and the clone
//! names the snapshot, a load removes from the clone the clusters that both have ([`spindle_format`]'s loader).
//! Until the clone's root is written, the clone reads the same whether its pages have been written or not. Where
//! the device tears a page, each rewrite needs a free page for its copy, and the next one gets the same page again.

use std::collections::BTreeSet;

use spindle_format::repair::PageCopy;
use spindle_format::{BlobMetadata, PageIdx, chain};

use super::blob_state::BlobState;
use super::metadata::Md;
use crate::error::BlobError;
use crate::ordering::Point;

impl Md {
    /// True if there are fewer free pages than the next [`Md::persist`] of a clone needs for its new map, and parts of
    /// it have to be written in place.
    ///
    /// # Errors
    /// There are too few pages for that, too.
    pub(super) fn merges_in_place(
        &self,
        clone: &BlobState,
        meta: &BlobMetadata,
        slots: &BTreeSet<u32>,
    ) -> Result<bool, BlobError> {
        let needed = pages_needed(clone, meta, slots) + self.pages_of_copy(clone, meta);
        let free = self.space.borrow().free_pages(true) + self.behind.count.get();
        let free = free + self.copies.borrow().spare_pages();
        if needed <= free {
            return Ok(false);
        }
        let in_place = slots.iter().filter(|&&slot| own_page(clone, meta, slot).is_some()).count() as u32;
        let needed = if meta.map.is_table() { needed - in_place } else { needed };
        if needed > free { Err(self.no_pages(needed.into())) } else { Ok(true) }
    }

    /// Writes parts of a clone's new map over the pages that it has for them, and takes these out of `slots`. Called
    /// under [`Md::lock`], after the durable mark on its snapshot, while the clone is frozen. If some of it was
    /// written, an error poisons the store.
    pub(super) async fn merge_in_place(
        &self,
        clone: &BlobState,
        meta: &BlobMetadata,
        slots: &mut BTreeSet<u32>,
    ) -> Result<(), BlobError> {
        let own: Vec<(u32, PageIdx)> = slots.iter().filter_map(|&slot| own_page(clone, meta, slot)).collect();
        let mut any = false;
        for (slot, at) in own {
            let Some(leaf) = meta.map.leaf(slot) else { continue };
            // A slot lies below 2^23, its first cluster below 2^32.
            let page = chain::extent_page(clone.id, leaf.first_cluster() as u32, &leaf.clusters.to_vec());
            let copy = async || self.write_copy(at, &page).await.inspect_err(|_| self.forget_rewrite(at));
            let copied = self.once_pages_are_back(copy).await.inspect_err(|error| {
                if any {
                    self.poison(error);
                }
            })?;
            if copied {
                self.flush_for(&[Point::CopyBeforePlace]).await?;
            }
            self.rewrite(at, &page).await?;
            any = true;
            slots.remove(&slot);
        }
        self.flush_for(&[Point::PagesBeforeRoot]).await
    }

    /// Number of free pages that the copy of a blob's new root takes. That of an extent page takes one.
    fn pages_of_copy(&self, blob: &BlobState, meta: &BlobMetadata) -> u32 {
        if !self.tears_pages() {
            return 0;
        }
        let has_room = chain::to_pages(blob.id, &placed(meta)).first().is_some_and(PageCopy::has_room);
        if has_room { 1 } else { 2 }
    }
}

/// Number of free pages that it takes to write a blob's new metadata with these slots.
fn pages_needed(blob: &BlobState, meta: &BlobMetadata, slots: &BTreeSet<u32>) -> u32 {
    let stale = meta.map.leaves().iter().filter(|leaf| leaf.page.is_none() || slots.contains(&leaf.slot));
    let behind_root = chain::to_pages(blob.id, &placed(meta)).len() - 1;
    (stale.count() + behind_root) as u32
}

/// Metadata with pages for all parts of its map. Any page: only how much room the numbers take counts.
fn placed(meta: &BlobMetadata) -> BlobMetadata {
    let mut meta = meta.clone();
    let new: Vec<u32> =
        meta.map.leaves().iter().filter(|leaf| leaf.page.is_none()).map(|leaf| leaf.slot).collect();
    new.into_iter().for_each(|slot| meta.map.set_extent_page(slot, PageIdx(1)));
    meta
}

/// The page that a clone has for a slot of its map, if that is as long as the new one.
fn own_page(clone: &BlobState, meta: &BlobMetadata, slot: u32) -> Option<(u32, PageIdx)> {
    let (known, new) = (clone.meta.borrow(), meta.map.leaf(slot)?);
    let now = known.map.leaf(slot)?;
    let page = now.page.filter(|_| now.clusters.len() == new.clusters.len())?;
    Some((slot, page))
}
