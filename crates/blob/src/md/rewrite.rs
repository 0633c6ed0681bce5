//! Rewrites pages in place, each after a copy of it where the device can tear a page.

use spindle_format::PageIdx;
use spindle_format::page::{PAGE_SIZE, Page};
use spindle_format::repair::{CopyPages, PageCopy, SectorSums};
use spindle_mem::IoBuf;

use super::copies::{Copies, Spares};
use super::metadata::Md;
use crate::error::BlobError;
use crate::ordering::Point;

/// Copies kept at a time; their metadata pages are not free meanwhile.
const MOST_COPIES: usize = 16;

impl Md {
    /// First half of rewriting a page in place: its copy, where the device can tear a page. If this returns
    /// true, a flush for [`Point::CopyBeforePlace`] must follow, then [`Md::rewrite`].
    pub(crate) async fn write_copy(&self, at: PageIdx, page: &Page) -> Result<bool, BlobError> {
        if !self.tears_pages() || !self.options.order.keeps(Point::CopyBeforePlace) {
            return Ok(false);
        }
        // Boxed: it holds pages, and every future that contains it would be moved with room for them.
        Box::pin(self.write_copy_beside(at, page)).await?;
        Ok(true)
    }

    async fn write_copy_beside(&self, at: PageIdx, page: &Page) -> Result<(), BlobError> {
        self.copies.borrow_mut().busy.insert(at);
        let rewritten = self.copies.borrow().rewritten.get(&at).copied();
        if rewritten.is_some_and(|begun| !self.flushes.covers(begun)) {
            self.flush_for(&[Point::PlaceBeforeForget]).await?;
        }
        let before = self.held_by(at).await?;
        let pages = PageCopy::new(at, page.clone(), before).to_pages();
        let spares = self.spares_for(at, &pages).await?;
        // A copy left by a failed write would stand for a rewrite that never happened.
        let beside = spares.sums.zip(pages.sums_for(spares.copy));
        for (spare, page) in
            beside.iter().map(|(spare, page)| (*spare, page)).chain([(spares.copy, &pages.copy)])
        {
            self.write_page(spare, page).await.inspect_err(|error| self.poison(error))?;
        }
        Ok(())
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
    async fn spares_for(&self, at: PageIdx, pages: &CopyPages) -> Result<Spares, BlobError> {
        let had = self.copies.borrow().of.get(&at).copied();
        let mut spares = match had {
            Some(spares) => spares,
            None => Spares { copy: self.find_page(1, true, |_| false).await?, sums: None },
        };
        // Registered now, so that it is given back even if there is no second page.
        self.copies.borrow_mut().of.insert(at, spares);
        if pages.needs_another() && spares.sums.is_none() {
            spares.sums = Some(self.find_page(1, true, |_| false).await?);
            self.copies.borrow_mut().of.insert(at, spares);
        }
        Ok(spares)
    }

    /// Second half of rewriting a page in place. A failure leaves the page unknown and poisons the store.
    pub(crate) async fn rewrite(&self, at: PageIdx, page: &Page) -> Result<(), BlobError> {
        let written = self.write_page(at, page).await.inspect_err(|error| self.poison(error));
        {
            let mut copies = self.copies.borrow_mut();
            copies.busy.remove(&at);
            copies.ended += 1;
            if written.is_ok() && self.tears_pages() {
                copies.holds.insert(at, SectorSums::of(page));
            }
            if copies.of.contains_key(&at) {
                copies.rewritten.insert(at, self.flushes.begun());
            }
        }
        self.rewriting.wake_all();
        written
    }

    /// Cancels the rewrite of a page.
    pub(crate) fn forget_rewrite(&self, at: PageIdx) {
        self.copies.borrow_mut().busy.remove(&at);
        self.rewriting.wake_all();
    }

    /// Performs the step of an operation that can neither go on nor go back without it. If it finds no page, it is
    /// repeated as long as rewrites of other pages end: they do not wait for [`Md::lock`], and may have the pages
    /// on which the operation counted.
    pub(super) async fn once_pages_are_back<T>(
        &self,
        step: impl AsyncFn() -> Result<T, BlobError>,
    ) -> Result<T, BlobError> {
        loop {
            let ended = self.copies.borrow().ended;
            let error = match step().await {
                Err(error @ BlobError::OutOfMetadata { .. }) => error,
                result => return result,
            };
            let has_ended = || self.copies.borrow().ended != ended;
            let none_is_left = || self.copies.borrow().busy.is_empty();
            if !has_ended() && none_is_left() {
                return Err(error);
            }
            self.rewriting.until(|| (has_ended() || none_is_left()).then_some(())).await;
        }
    }

    /// Gives back the pages of old copies if there are many.
    pub(crate) async fn trim_copies(&self) -> Result<(), BlobError> {
        if self.copies.borrow().of.len() > MOST_COPIES { self.drop_copies().await } else { Ok(()) }
    }

    /// Clears all copies durably, except those of pages being rewritten, and gives their pages back.
    pub(crate) async fn drop_copies(&self) -> Result<(), BlobError> {
        // A second caller finds free what the first one clears.
        let _clearing = self.clearing_copies.lock().await;
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
}
