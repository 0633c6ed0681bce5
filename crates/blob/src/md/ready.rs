//! Clusters zeroed in the background, so that a write that needs a new one need not wait for it.
//!
//! Only where clusters are not known to read zero: a store that was loaded, or a device whose unmapped
//! blocks read anything. The pool begins small, when a write has had to zero its cluster itself, and grows
//! while it is used up faster than it is refilled.

use std::rc::Rc;

use super::Md;

/// Bytes that are kept zeroed ahead, at most.
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

    async fn refill_ready(&self) {
        let most = (MOST_BYTES / u64::from(self.shared.cluster_size)).clamp(2, MOST) as usize;
        let target = (self.ready_target.get() * 2).clamp(2, most);
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
                zeroed &= self.local.write_zeroes(offset, len).await.is_ok();
            }
            let since = zeroed.then(|| self.flushes.begun());
            let mut space = self.space.borrow_mut();
            batch.into_iter().for_each(|cluster| space.free_cluster(cluster, since));
            if !zeroed {
                // Whoever needs one finds out what is wrong with the device.
                return;
            }
        }
    }
}
