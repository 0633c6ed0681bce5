//! Writes metadata: the device's commands, flushes by name, and pages rewritten in place.

use std::collections::{BTreeMap, BTreeSet};

use spindle_format::page::PAGE_SIZE;
use spindle_format::repair::{CopyPages, PageCopy, SectorSums};
use spindle_format::{BlobId, Change, PageIdx, SuperBlock, page::Page};
use spindle_mem::IoBuf;

use super::Md;
use crate::error::BlobError;
use crate::ordering::Point;

/// Where copies of pages lie that were rewritten in place.
///
/// A copy stays for the next rewrite of its page and is overwritten only when the last one is durable: with
/// two copies of a torn page the valid one could not be told, and a single one could be torn too. It is used
/// only when its page is torn, and cleared before its page is freed.
#[derive(Default)]
pub(crate) struct Copies {
    of: BTreeMap<PageIdx, Spares>,
    /// Checksums by sector of pages that were rewritten in place.
    holds: BTreeMap<PageIdx, SectorSums>,
    /// Pages whose copy is written and that are not rewritten yet.
    busy: BTreeSet<PageIdx>,
    /// The number of flushes that had begun when a page was last rewritten.
    rewritten: BTreeMap<PageIdx, u64>,
}

/// The pages of a copy.
#[derive(Clone, Copy)]
struct Spares {
    copy: PageIdx,
    /// For its checksums, if they did not fit into it once.
    sums: Option<PageIdx>,
}

impl Spares {
    fn pages(self) -> impl Iterator<Item = PageIdx> {
        // The copy last: without its checksums it is ignored.
        self.sums.into_iter().chain([self.copy])
    }
}

/// Copies kept at a time; their metadata pages are not free meanwhile.
const MOST_COPIES: usize = 16;

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

    /// Writes a page into a slot that nothing on disk names yet.
    pub(crate) async fn write_page(&self, at: PageIdx, page: &Page) -> Result<(), BlobError> {
        let change = page.write(at, &self.geometry.borrow());
        self.apply(&change).await
    }

    /// First half of rewriting a page in place: its copy, where the device can tear a page. If this returns
    /// true, a flush for [`Point::CopyBeforePlace`] must follow, then [`Md::rewrite`].
    pub(crate) async fn write_copy(&self, at: PageIdx, page: &Page) -> Result<bool, BlobError> {
        if !self.tears_pages() || !self.options.order.keeps(Point::CopyBeforePlace) {
            return Ok(false);
        }
        self.copies.borrow_mut().busy.insert(at);
        let rewritten = self.copies.borrow().rewritten.get(&at).copied();
        if rewritten.is_some_and(|begun| !self.flushes.covers(begun)) {
            self.flush_for(&[Point::PlaceBeforeForget]).await?;
        }
        let before = self.held_by(at).await?;
        let pages = PageCopy::new(at, page.clone(), before).to_pages();
        let spares = self.spares_for(at, &pages)?;
        // A copy left by a failed write would stand for a rewrite that never happened.
        let beside = spares.sums.zip(pages.sums_for(spares.copy));
        for (spare, page) in
            beside.iter().map(|(spare, page)| (*spare, page)).chain([(spares.copy, &pages.copy)])
        {
            self.write_page(spare, page).await.inspect_err(|error| self.poison(error))?;
        }
        Ok(true)
    }

    /// Checksums of a page to which nothing is being written.
    async fn held_by(&self, at: PageIdx) -> Result<SectorSums, BlobError> {
        if let Some(&known) = self.copies.borrow().holds.get(&at) {
            return Ok(known);
        }
        let offset = self.geometry.borrow().page_offset(at);
        let (result, buffers) = self.local.channel().read(offset, IoBuf::zeroed(PAGE_SIZE)).await;
        result?;
        let bytes = buffers.to_vec();
        Ok(SectorSums::of(Page::view(&bytes).expect("as many bytes as a page has were read")))
    }

    /// Where a page's copy goes.
    fn spares_for(&self, at: PageIdx, pages: &CopyPages) -> Result<Spares, BlobError> {
        let take = || {
            self.check_allocation()?;
            let taken = self.space.borrow_mut().take_page(1, true);
            taken.ok_or_else(|| self.no_pages(1))
        };
        let had = self.copies.borrow().of.get(&at).copied();
        let mut spares = match had {
            Some(spares) => spares,
            None => Spares { copy: take()?, sums: None },
        };
        // Registered now, so that it is given back even if there is no second page.
        self.copies.borrow_mut().of.insert(at, spares);
        if pages.needs_another() && spares.sums.is_none() {
            spares.sums = Some(take()?);
            self.copies.borrow_mut().of.insert(at, spares);
        }
        Ok(spares)
    }

    /// Second half of rewriting a page in place. A failure leaves the page unknown and poisons the store.
    pub(crate) async fn rewrite(&self, at: PageIdx, page: &Page) -> Result<(), BlobError> {
        let written = self.write_page(at, page).await.inspect_err(|error| self.poison(error));
        let mut copies = self.copies.borrow_mut();
        copies.busy.remove(&at);
        if written.is_ok() && self.tears_pages() {
            copies.holds.insert(at, SectorSums::of(page));
        }
        if copies.of.contains_key(&at) {
            copies.rewritten.insert(at, self.flushes.begun());
        }
        written
    }

    /// Cancels the rewrite of a page.
    pub(crate) fn forget_rewrite(&self, at: PageIdx) {
        self.copies.borrow_mut().busy.remove(&at);
    }

    /// Gives back the pages of old copies if there are many.
    pub(crate) async fn trim_copies(&self) -> Result<(), BlobError> {
        if self.copies.borrow().of.len() > MOST_COPIES { self.drop_copies().await } else { Ok(()) }
    }

    /// Clears all copies durably, except those of pages being rewritten, and gives their pages back.
    pub(crate) async fn drop_copies(&self) -> Result<(), BlobError> {
        let copies: Vec<PageIdx> = {
            let mut all = self.copies.borrow_mut();
            let Copies { of, busy, rewritten, .. } = &mut *all;
            rewritten.retain(|page, _| busy.contains(page));
            of.extract_if(.., |page, _| !busy.contains(page)).flat_map(|(_, spares)| spares.pages()).collect()
        };
        if copies.is_empty() {
            return Ok(());
        }
        // The pages must be whole on disk before their copies go.
        self.flush_for(&[Point::PlaceBeforeForget]).await?;
        self.clear_pages(copies.iter().copied()).await?;
        self.space.borrow_mut().free_pages_again(copies);
        Ok(())
    }

    /// Takes the copies of pages that are being freed, to be cleared with them.
    pub(crate) fn take_copies(&self, pages: &[PageIdx]) -> Vec<PageIdx> {
        let mut copies = self.copies.borrow_mut();
        pages.iter().for_each(|page| {
            copies.rewritten.remove(page);
            copies.holds.remove(page);
        });
        pages.iter().filter_map(|page| copies.of.remove(page)).flat_map(Spares::pages).collect()
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

    /// Marks the masks on disk as not to be trusted, before the first change.
    pub(crate) async fn mark_dirty(&self) -> Result<(), BlobError> {
        self.check_writable()?;
        if !self.clean_on_disk.get() {
            return Ok(());
        }
        if self.recovered {
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
    /// two writes the older might be the one that stays, and two changes in one could not be told from the
    /// CRC of a torn block.
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

    pub(crate) fn no_pages(&self, needed: u64) -> BlobError {
        let free = u64::from(self.space.borrow().free_pages(false));
        BlobError::OutOfMetadata { store: self.shared.name.clone(), needed, free }
    }

    pub(crate) fn no_space(&self, needed: u64) -> BlobError {
        let free = self.free_clusters();
        BlobError::OutOfSpace { store: self.shared.name.clone(), needed, free }
    }
}
