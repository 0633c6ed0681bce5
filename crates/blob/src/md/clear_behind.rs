//! Clears in the background what deletions leave: first the metadata pages of deleted blobs, then their clusters.
//!
//! A deletion is over when its root is durably gone. Its pages stay in use until they are cleared here; an
//! operation that finds no other page clears them itself. Its clusters are free at once, and not known to
//! read zero, so that an allocation that gets one zeroes it, as any other. The rest is cleared in steps with a
//! pause after each, so that the requests of the store's users get most of the device.
//!
//! A program that dies leaves clusters uncleared. So after the recovery of a store its free clusters are
//! searched for those that the device still holds, where the device can tell; these are unmapped in the same
//! way. An unload does the rest without pauses: a store that was left in order has nothing to search for. A store
//! whose handles are dropped stops.
//!
//! Not promised: that anything is cleared. As always, a device may ignore an unmap, and a failure is not
//! reported: the next owner zeroes what is not known to be zero.

use std::rc::Rc;

use spindle_block::Operation;
use spindle_format::{ClearMethod, PageIdx};
use spindle_reactor::{now, sleep};

use super::behind::LeftPages;
use super::metadata::Md;
use super::turns::Turns;
use crate::error::BlobError;
use crate::ordering::Point;
use crate::space::Clearing;

/// Bytes cleared in one step: a file system locks the file while it frees a range.
const STEP: u64 = 32 << 20;

/// Bytes cleared in one step while a store is being left.
const STEP_AT_THE_END: u64 = 1 << 30;

/// How long the pause after a step is, as a multiple of the step.
const PAUSE: u32 = 3;

/// Requests in one step of a search.
const SEARCHES: u32 = 64;

impl Md {
    /// Takes over what a deleted blob had, once its root is durably gone.
    pub(super) fn leave_pages(&self, root: PageIdx, pages: Vec<PageIdx>) {
        let mut all = self.take_copies(&pages);
        all.extend(pages);
        let root = match self.tears_pages() {
            true => Some(root),
            false => {
                self.space.borrow_mut().free_pages_again([root]);
                None
            }
        };
        self.behind.leave(LeftPages { root, pages: all });
    }

    /// Frees clusters that no map names and no request reads any more; they are cleared in the background, by the
    /// method of the blob that had them.
    pub(super) async fn free_behind(&self, clusters: impl Iterator<Item = u32>, method: ClearMethod) {
        let how = match method {
            ClearMethod::None => None,
            ClearMethod::WriteZeroes => Some(Clearing::WriteZeroes),
            ClearMethod::Default | ClearMethod::Unmap => {
                (!self.local.refuses_unmap()).then_some(Clearing::Unmap)
            }
        };
        let mut turns = Turns::default();
        for cluster in clusters {
            match how {
                None => self.space.borrow_mut().free_cluster(cluster, None),
                Some(how) => self.space.borrow_mut().free_stale([cluster], how),
            }
            turns.spend(1).await;
        }
        self.space_changed();
    }

    /// Begins to clear in the background, if that is not under way.
    pub(super) fn clear_behind(self: &Rc<Md>) {
        if self.behind.runs.replace(true) {
            return;
        }
        let md = self.clone();
        drop(spindle_reactor::spawn_local(async move {
            md.clear_slowly().await;
            md.behind.runs.set(false);
        }));
    }

    /// Begins to search for free clusters that the device still holds, after a program that died.
    pub(super) fn search_held(self: &Rc<Md>) {
        let sure = self.check_allocation().is_ok() && self.found.damaged.is_empty();
        let tells = self.local.channel().device().supports(Operation::SeekData);
        if self.found.recovered && sure && tells {
            self.behind.search.set(Some(0));
            self.clear_behind();
        }
    }

    async fn clear_slowly(&self) {
        loop {
            let began = now();
            // An error has poisoned the store.
            if self.check_allocation().is_err() || self.clear_left_pages(false).await.is_err() {
                return;
            }
            let more = self.search_some(false).await;
            if !self.clear_some(STEP, false).await && !more {
                return;
            }
            sleep((now() - began) * PAUSE).await;
        }
    }

    /// Does what is left without pauses, for an unload.
    pub(super) async fn clear_rest(&self) {
        let unsure = self.shared.read_only || self.found.blocked.is_some();
        if unsure || self.shared.check_poison().is_err() || self.clear_left_pages(true).await.is_err() {
            return;
        }
        while self.search_some(true).await | self.clear_some(STEP_AT_THE_END, true).await {}
    }

    /// Waits until no step is under way; the next one finds that the store is gone.
    pub(super) async fn clearing_stopped(&self) {
        drop(self.behind.lock.lock().await);
        drop(self.ahead.lock.lock().await);
    }

    /// Metadata pages that are free, or will be as soon as they are needed.
    pub(super) fn used_pages(&self) -> u32 {
        self.space.borrow().pages.count() - self.behind.count.get()
    }

    /// Clears the pages that deleted blobs left, and frees them: roots of which a part was left once a flush has
    /// covered that, which is made if they are `needed`.
    async fn clear_left_pages(&self, needed: bool) -> Result<(), BlobError> {
        let _busy = self.behind.lock.lock().await;
        self.shared.check_poison()?;
        loop {
            let left = self.behind.pages.take();
            if left.is_empty() {
                break;
            }
            let roots: Vec<PageIdx> = left.iter().filter_map(|left| left.root).collect();
            self.clear_pages(roots.iter().copied()).await?;
            let begun = self.flushes.begun();
            self.behind.roots.borrow_mut().extend(roots.into_iter().map(|root| (root, begun)));
            // Should a copy reappear after a crash, its checksums do not match the page.
            let pages: Vec<PageIdx> = left.into_iter().flat_map(|left| left.pages).collect();
            self.clear_pages(pages.iter().copied()).await?;
            self.free_left(pages);
        }
        let is_covered = |&(_, begun): &(PageIdx, u64)| self.flushes.covers(begun);
        let flushes = needed && !self.behind.roots.borrow().iter().all(is_covered);
        if flushes {
            self.flush_for(&[Point::RootBeforeRest]).await?;
        }
        let covered: Vec<(PageIdx, u64)> =
            self.behind.roots.borrow_mut().extract_if(.., |root| flushes || is_covered(root)).collect();
        self.free_left(covered.into_iter().map(|(root, _)| root).collect());
        Ok(())
    }

    fn free_left(&self, pages: Vec<PageIdx>) {
        self.behind.count.update(|count| count - pages.len() as u32);
        self.space.borrow_mut().free_pages_again(pages);
    }

    /// A free metadata page, at or after `from`, that `skip` does not refuse: if there is no other, one that a
    /// deleted blob has left, or that holds the copy of another page. An `urgent` caller may get one that is kept back.
    pub(super) async fn find_page(
        &self,
        from: u32,
        urgent: bool,
        skip: impl Fn(u32) -> bool,
    ) -> Result<PageIdx, BlobError> {
        loop {
            self.check_allocation()?;
            let page = self.space.borrow_mut().take_page_unless(from, urgent, &skip);
            match page {
                Some(page) => return Ok(page),
                None if self.behind.count.get() > 0 => self.clear_left_pages(true).await?,
                None if self.copies.borrow().spare_pages() > 0 => self.drop_copies().await?,
                None => return Err(self.no_pages(1)),
            }
        }
    }

    /// Clears some stale clusters, `bytes` at most; false if there are none. Does nothing more in a store that is
    /// gone, except for its `last` steps.
    async fn clear_some(&self, bytes: u64, last: bool) -> bool {
        // A caller that needs every free cluster waits for this.
        let _busy = self.ahead.lock.lock().await;
        if self.shared.check_poison().is_err() || (self.shared.is_unloaded() && !last) {
            return false;
        }
        if self.local.refuses_unmap() {
            self.space.borrow_mut().forget_unmaps();
        }
        let most = bytes / u64::from(self.shared.cluster_size);
        let Some((how, some)) = self.space.borrow_mut().take_stale(most as usize) else { return false };
        let method = match how {
            Clearing::Unmap => ClearMethod::Unmap,
            Clearing::WriteZeroes => ClearMethod::WriteZeroes,
        };
        let since = self.clear_clusters(&some, method).await;
        self.space.borrow_mut().free_cleared(&some, since);
        true
    }

    /// Searches some of the free space for clusters that the device still holds; false at the end. `last` as for
    /// [`Self::clear_some`].
    async fn search_some(&self, last: bool) -> bool {
        if self.behind.search.get().is_none() {
            return false;
        }
        let _busy = self.ahead.lock.lock().await;
        if self.shared.is_unloaded() && !last {
            return false;
        }
        for _ in 0..SEARCHES {
            let next = match self.behind.search.get() {
                // Nothing can be done about what it would find.
                Some(_) if self.local.refuses_unmap() => None,
                Some(from) => self.search_from(from).await,
                None => None,
            };
            self.behind.search.set(next);
        }
        self.behind.search.get().is_some()
    }

    /// Notes the free clusters from `from` on that the device holds, up to the first that it does not. Returns
    /// where the search continues; `None` at the end, or if the device cannot tell.
    async fn search_from(&self, from: u32) -> Option<u32> {
        let size = u64::from(self.shared.cluster_size);
        let (first, end) = {
            let clusters = &self.space.borrow().clusters;
            let first = clusters.first_clear(from)?;
            (first, clusters.first_set(first).unwrap_or(clusters.len()))
        };
        let channel = self.local.channel();
        let data = channel.seek_data(u64::from(first) * size).await.ok()?;
        if data >= u64::from(end) * size {
            return Some(end);
        }
        let hole = channel.seek_hole(data).await.ok()?;
        let data = ((data / size) as u32).max(first);
        // At least one cluster, so that the search advances with any answer of the device.
        let behind = (hole.div_ceil(size).min(end.into()) as u32).max(data + 1);
        let mut turns = Turns::default();
        for cluster in data..behind {
            self.space.borrow_mut().note_held(cluster);
            turns.spend(1).await;
        }
        Some(behind)
    }
}
