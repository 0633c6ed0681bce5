//! Deletes a snapshot where there are no metadata pages for new parts of its clone's map: what the clone takes over
//! goes into the extent pages that it has.
//!
//! SPDK always does it this way, so its format has a mark for it: while the snapshot carries the mark and the clone
//! names the snapshot, a load removes from the clone the clusters that both have ([`spindle_format`]'s loader).
//! Until the clone's root is written, the clone reads the same whether its pages have been written or not. Used
//! only where the device tears no page, as the copy of a page would need a free page too.

use std::collections::BTreeSet;

use spindle_format::{BlobMetadata, PageIdx, chain};

use super::blob_state::BlobState;
use super::metadata::Md;
use crate::error::BlobError;
use crate::ordering::Point;

impl Md {
    /// Writes parts of a clone's new map over the pages that it has for them, and takes these out of `slots`, if
    /// there are fewer free pages than its next [`Md::persist`] needs; true if it wrote any. Called under
    /// [`Md::lock`], after the durable mark on its snapshot, while the clone is frozen.
    pub(super) async fn merge_in_place(
        &self,
        clone: &BlobState,
        meta: &BlobMetadata,
        slots: &mut BTreeSet<u32>,
    ) -> Result<bool, BlobError> {
        let needed = pages_needed(clone, meta, slots);
        let free = self.space.borrow().free_pages(true) + self.behind.count.get();
        if needed <= free || self.tears_pages() || !meta.map.is_table() {
            return Ok(false);
        }
        let own: Vec<(u32, PageIdx)> = slots.iter().filter_map(|&slot| own_page(clone, meta, slot)).collect();
        let needed = needed - own.len() as u32;
        if needed > free {
            return Err(self.no_pages(needed.into()));
        }
        for (slot, at) in own {
            let Some(leaf) = meta.map.leaf(slot) else { continue };
            // A slot lies below 2^23, its first cluster below 2^32.
            let page = chain::extent_page(clone.id, leaf.first_cluster() as u32, &leaf.clusters.to_vec());
            self.rewrite(at, &page).await?;
            slots.remove(&slot);
        }
        self.flush_for(&[Point::PagesBeforeRoot]).await?;
        Ok(true)
    }
}

/// Number of free pages that it takes to write a blob's new metadata with these slots.
fn pages_needed(blob: &BlobState, meta: &BlobMetadata, slots: &BTreeSet<u32>) -> u32 {
    let stale = meta.map.leaves().iter().filter(|leaf| leaf.page.is_none() || slots.contains(&leaf.slot));
    let behind_root = chain::to_pages(blob.id, meta).len() - 1;
    (stale.count() + behind_root) as u32
}

/// The page that a clone has for a slot of its map, if that is as long as the new one.
fn own_page(clone: &BlobState, meta: &BlobMetadata, slot: u32) -> Option<(u32, PageIdx)> {
    let (known, new) = (clone.meta.borrow(), meta.map.leaf(slot)?);
    let now = known.map.leaf(slot)?;
    let page = now.page.filter(|_| now.clusters.len() == new.clusters.len())?;
    Some((slot, page))
}
