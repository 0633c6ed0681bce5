//! Zeroes clusters in the background, so that a write that needs a new one need not wait for that.
//!
//! Only where clusters are not known to read zero: in a store that was loaded, or on a device whose unmapped
//! blocks may read anything. The pool begins small, when a write had to zero its cluster itself, and grows
//! while it is used up faster than it is refilled. Where an unmap makes zeroes the pool takes no space of the
//! host. Otherwise it is bounded in bytes, so that large clusters are not zeroed ahead at all, and it is
//! given back by an unload, when no blob is open any more, and when no write needed a new cluster for a while. A
//! timer runs only while there is something to give back.

use std::rc::Rc;
use std::time::Duration;

use spindle_reactor::{Busy, Poller};

use super::metadata::Md;
use crate::shared::Member;
use crate::waiting::locked;

/// Upper bound of zero bytes written ahead.
const MOST_BYTES: u64 = 64 << 20;

/// Upper bound of clusters zeroed ahead.
const MOST: u64 = 64;

/// Zeroes that were written ahead are given back after this time, and at most twice this time, without a write that
/// needed a new cluster.
const IDLE: Duration = Duration::from_secs(1);

impl Md {
    /// Keeps zeroed clusters ready, in the background.
    pub(crate) fn keep_ready(self: &Rc<Md>) {
        if self.ahead.runs.replace(true) {
            return;
        }
        let md = self.clone();
        drop(spindle_reactor::spawn_local(async move {
            md.refill_ready().await;
            md.ahead.runs.set(false);
        }));
    }

    /// The present bound of clusters zeroed ahead.
    fn most_ready(&self) -> usize {
        match self.local.clears_by_unmap() {
            true => MOST as usize,
            false => (MOST_BYTES / u64::from(self.shared.cluster_size)).min(MOST) as usize,
        }
    }

    /// Gives the host the space of zeroes back that were written ahead and not used.
    pub(crate) async fn forget_ready(&self) {
        self.recall().await;
        let _idle = self.ahead.lock.lock().await;
        // Also while the store is being left.
        if self.shared.read_only || self.found.blocked.is_some() || self.shared.check_poison().is_err() {
            return;
        }
        self.ahead.target.set(0);
        let clusters = {
            let mut space = self.space.borrow_mut();
            space.want_zero(0);
            space.take_written_ahead()
        };
        self.release_unused(clusters).await;
        // A thread may have taken some into its reserve meanwhile.
        if !self.holds_written_ahead() {
            drop(self.ahead.idle.take());
        }
    }

    /// Whether zeroes were written into clusters that no write has needed yet.
    pub(crate) fn holds_written_ahead(&self) -> bool {
        let in_hand = |member: &Member| member.reserve.holds_written();
        self.space.borrow().has_written_ahead() || locked(&self.shared.members).iter().any(in_hand)
    }

    /// Gives zeroes that were written ahead back when they have not been needed for a while.
    fn watch_for_idleness(self: &Rc<Md>) {
        let mut idle = self.ahead.idle.borrow_mut();
        if idle.is_some() {
            return;
        }
        let (md, mut seen) = (Rc::downgrade(self), self.ahead.asked.get());
        *idle = Some(Poller::timed("zeroes written ahead", IDLE, move || {
            let Some(md) = md.upgrade() else { return Busy::No };
            let asked = md.ahead.asked.get();
            if std::mem::replace(&mut seen, asked) != asked {
                return Busy::No;
            }
            drop(md.ahead.idle.take());
            drop(spindle_reactor::spawn_local(async move {
                md.forget_ready().await;
                // A thread may have taken some into its reserve meanwhile.
                if md.holds_written_ahead() && !md.shared.is_unloaded() {
                    md.watch_for_idleness();
                }
            }));
            Busy::Yes
        }));
    }

    async fn refill_ready(self: &Rc<Md>) {
        let most = self.most_ready();
        let target = (self.ahead.target.get() * 2).clamp(most.min(2), most);
        self.ahead.target.set(target);
        self.space.borrow_mut().want_zero(target / 2);
        loop {
            let _busy = self.ahead.lock.lock().await;
            if self.check_allocation().is_err() || self.shared.is_unloaded() {
                return;
            }
            let batch = {
                let mut space = self.space.borrow_mut();
                let plenty = space.free_clusters() as usize > 4 * most;
                // None any more once they were given back.
                let target = self.ahead.target.get();
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
            if !by_unmap {
                self.watch_for_idleness();
            }
            let mut space = self.space.borrow_mut();
            for cluster in batch {
                space.free_cluster(cluster, since);
                if !by_unmap {
                    space.note_written_ahead(cluster);
                }
            }
            if !zeroed {
                // The next write reports what is wrong with the device.
                return;
            }
        }
    }
}
