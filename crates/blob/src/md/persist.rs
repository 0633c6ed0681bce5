//! Writes a blob's metadata so that a crash leaves the old or the new: new pages first, the root last.

use std::collections::BTreeSet;

use spindle_format::cluster_map::Leaf;
use spindle_format::page::Page;
use spindle_format::{BlobMetadata, PageIdx, chain};

use super::blob_state::BlobState;
use super::metadata::Md;
use crate::error::BlobError;
use crate::ordering::Point;
use crate::waiting::join_all;

/// New pages written in parallel.
const PAGES_AT_ONCE: usize = 64;

/// Parameters of a persist.
pub(crate) struct Persist {
    /// Slots of the extent table whose pages must be written again, besides slots without a page.
    pub(crate) slots: BTreeSet<u32>,
    /// Allows the use of reserved pages.
    pub(crate) urgent: bool,
    /// True if the map names clusters that have just been filled.
    pub(crate) fills: bool,
    /// The purposes of the flush after the root, besides freeing what was replaced.
    pub(crate) after: Vec<Point>,
    /// For a blob that is not frozen: the changes of its map that this makes. Other clusters of it may change
    /// meanwhile.
    pub(crate) changes: Option<Vec<(u64, Option<u32>)>>,
    /// Old extent pages that stay, because another blob has them now.
    pub(crate) keep: BTreeSet<PageIdx>,
}

impl Default for Persist {
    /// The last write, without new clusters, of an operation on a frozen blob.
    fn default() -> Persist {
        Persist {
            slots: BTreeSet::new(),
            urgent: false,
            fills: false,
            after: vec![Point::DurableBeforeAck],
            changes: None,
            keep: BTreeSet::new(),
        }
    }
}

impl Md {
    /// Writes a blob's metadata, which becomes `meta` when this succeeds. Called under [`Md::lock`].
    ///
    /// New extent pages and all of the chain but its root go to free pages; the root is the commit. What was
    /// replaced is cleared and freed when the root is durable. An error before the root was written leaves
    /// everything as it was; one after it poisons the store.
    pub(crate) async fn persist(
        &self,
        blob: &BlobState,
        mut meta: BlobMetadata,
        how: Persist,
    ) -> Result<(), BlobError> {
        self.mark_dirty().await?;
        let old_pages: Vec<PageIdx> = blob.meta.borrow().map.extent_pages().map(|(_, page)| page).collect();
        let mut taken = Vec::new();
        let prepared = self.prepare(blob, &mut meta, &how, &mut taken).await;
        let (pages, at) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                blob.id.root_page().into_iter().for_each(|root| self.forget_rewrite(root));
                self.space.borrow_mut().free_pages_again(taken);
                return Err(error);
            }
        };
        self.rewrite(at[0], &pages[0]).await?;
        let new_pages: BTreeSet<PageIdx> = meta.map.extent_pages().map(|(_, page)| page).collect();
        let mut gone = blob.chain.borrow()[1..].to_vec();
        gone.extend(
            old_pages.into_iter().filter(|page| !new_pages.contains(page) && !how.keep.contains(page)),
        );
        let unmap = (!gone.is_empty()).then_some(Point::UnmapBeforeFree);
        self.flush_for(&[how.after.as_slice(), unmap.as_slice()].concat()).await?;
        *blob.chain.borrow_mut() = at;
        take_over(blob, meta, how.changes);
        self.free_pages(gone).await?;
        self.trim_copies().await
    }

    /// Everything before the root: pages taken, written and durable. `taken` lists what was taken.
    async fn prepare(
        &self,
        blob: &BlobState,
        meta: &mut BlobMetadata,
        how: &Persist,
        taken: &mut Vec<PageIdx>,
    ) -> Result<(Vec<Page>, Vec<PageIdx>), BlobError> {
        let root = blob.id.root_page().ok_or(BlobError::NoSuchBlob { blob: blob.id })?;
        let stale = |leaf: &&Leaf| leaf.page.is_none() || how.slots.contains(&leaf.slot);
        let leaves: Vec<Leaf> = match meta.map.is_table() {
            true => meta.map.leaves().iter().filter(stale).cloned().collect(),
            false => Vec::new(),
        };
        for some in leaves.chunks(PAGES_AT_ONCE) {
            let mut writes = Vec::new();
            for leaf in some {
                let page = self.take_page(how.urgent, taken).await?;
                meta.map.set_extent_page(leaf.slot, page);
                // A slot lies below 2^23, its first cluster below 2^32.
                let (first, clusters) = (leaf.first_cluster() as u32, leaf.clusters.to_vec());
                writes.push((page, chain::extent_page(blob.id, first, &clusters)));
            }
            self.write_pages(&writes).await?;
        }
        let mut pages = chain::to_pages(blob.id, meta);
        let mut at = vec![root];
        while at.len() < pages.len() {
            at.push(self.take_page(how.urgent, taken).await?);
        }
        chain::link(&mut pages, &at);
        let writes: Vec<_> = at.iter().copied().zip(pages.iter().cloned()).skip(1).collect();
        for some in writes.chunks(PAGES_AT_ONCE) {
            self.write_pages(some).await?;
        }
        let fills = how.fills.then_some(Point::FillBeforeMap);
        let new = (leaves.len() + writes.len() > 0).then_some(Point::PagesBeforeRoot);
        self.flush_for(&[fills.as_slice(), new.as_slice()].concat()).await?;
        // Only now: from here on the copy counts if the contents of the root's page are damaged, and they may
        // be the half-cleared rest of an earlier use.
        if self.write_copy(root, &pages[0]).await? {
            self.flush_for(&[Point::CopyBeforePlace]).await?;
        }
        Ok((pages, at))
    }

    async fn write_pages(&self, pages: &[(PageIdx, Page)]) -> Result<(), BlobError> {
        let written = join_all(pages.iter().map(|(at, page)| self.write_page(*at, page))).await;
        written.into_iter().collect()
    }

    async fn take_page(&self, urgent: bool, taken: &mut Vec<PageIdx>) -> Result<PageIdx, BlobError> {
        let page = self.find_page(1, urgent, |_| false).await?;
        taken.push(page);
        Ok(page)
    }

    /// Reserves pages for a later step of an operation.
    pub(crate) async fn set_aside(&self, count: usize) -> Result<Vec<PageIdx>, BlobError> {
        let mut taken = Vec::new();
        while taken.len() < count {
            if let Err(error) = self.take_page(true, &mut taken).await {
                self.give_back(taken);
                return Err(error);
            }
        }
        Ok(taken)
    }

    /// Gives reserved pages back.
    pub(crate) fn give_back(&self, pages: Vec<PageIdx>) {
        self.space.borrow_mut().free_pages_again(pages);
    }

    /// Clears pages that nothing on disk names any more, and gives them back.
    pub(crate) async fn free_pages(&self, mut pages: Vec<PageIdx>) -> Result<(), BlobError> {
        if pages.is_empty() {
            return Ok(());
        }
        let copies = self.take_copies(&pages);
        pages.extend(copies);
        // Should a copy reappear after a crash, its checksums do not match the page.
        self.clear_pages(pages.iter().copied()).await?;
        self.space.borrow_mut().free_pages_again(pages);
        Ok(())
    }
}

/// Makes what is on disk the metadata in memory, except for what has changed meanwhile: xattrs, and the
/// clusters of a blob that is not frozen.
fn take_over(blob: &BlobState, mut written: BlobMetadata, changes: Option<Vec<(u64, Option<u32>)>>) {
    let Some(changes) = changes else {
        let mut known = blob.meta.borrow_mut();
        written.xattrs = std::mem::take(&mut known.xattrs);
        *known = written;
        return;
    };
    blob.remap(changes);
    let mut known = blob.meta.borrow_mut();
    for (slot, page) in written.map.extent_pages() {
        known.map.set_extent_page(slot, page);
    }
}
