//! Clusters zeroed in the background, so that a write that needs a new one need not wait for it.
//!
//! Only where clusters are not known to read zero: a store that was loaded, or a device whose unmapped
//! blocks read anything. The pool begins small, when a write has had to zero its cluster itself, and grows
//! while it is used up faster than it is refilled. Where an unmap makes zeroes it takes none of the host's
//! space; else it is bounded in bytes, so that large clusters are not zeroed ahead at all, and is given back when
//! no blob is open any more, and by an unload.

use std::rc::Rc;

use super::Md;

/// Bytes of zeroes that are written ahead, at most.
const MOST_BYTES: u64 = 64 << 20;

/// Clusters that are kept zeroed ahead, at most.
const MOST: u64 = 64;

impl Md {
    /// Sees to it that zeroed clusters are ready, in the background.
    pub(crate) fn keep_ready(self: &Rc<Md>) {
        if self.refilling.replace(true) {
            return;
        }
        let md = self.clone();
        drop(spindle_reactor::spawn_local(async move {
            md.refill_ready().await;
            md.refilling.set(false);
        }));
    }

    /// Clusters that are kept zeroed ahead at most.
    fn most_ready(&self) -> usize {
        match self.local.clears_by_unmap() {
            true => MOST as usize,
            false => (MOST_BYTES / u64::from(self.shared.cluster_size)).min(MOST) as usize,
        }
    }

    /// Gives the host back what zeroes take that were written ahead and not used.
    pub(crate) async fn forget_ready(&self) {
        self.recall().await;
        let _idle = self.zeroing.lock().await;
        // Also of a store that is being left.
        if self.shared.read_only || self.blocked.is_some() || self.shared.check_poison().is_err() {
            return;
        }
        self.ready_target.set(0);
        let clusters = {
            let mut space = self.space.borrow_mut();
            space.want_zero(0);
            space.take_written_ahead()
        };
        self.release_unused(clusters).await;
    }

    async fn refill_ready(&self) {
        let most = self.most_ready();
        let target = (self.ready_target.get() * 2).clamp(most.min(2), most);
        self.ready_target.set(target);
        self.space.borrow_mut().want_zero(target / 2);
        loop {
            let _busy = self.zeroing.lock().await;
            if self.check_allocation().is_err() || self.shared.is_unloaded() {
                return;
            }
            let batch = {
                let mut space = self.space.borrow_mut();
                let plenty = space.free_clusters() as usize > 4 * most;
                let missing = target.saturating_sub(space.ready());
                if plenty && missing > 0 {
                    space.take_dirty(missing.min(target.div_ceil(2)))
                } else {
                    Vec::new()
                }
            };
            if batch.is_empty() {
                return;
            }
            let mut zeroed = true;
            for (offset, len) in self.byte_ranges(batch.iter().copied()) {
                zeroed &= self.local.clear(offset, len).await.is_ok();
            }
            let since = zeroed.then(|| self.flushes.begun());
            let by_unmap = self.local.clears_by_unmap();
            let mut space = self.space.borrow_mut();
            for cluster in batch {
                space.free_cluster(cluster, since);
                if !by_unmap {
                    space.note_written_ahead(cluster);
                }
            }
            if !zeroed {
                // Whoever needs one finds out what is wrong with the device.
                return;
            }
        }
    }
}
