//! Clusters that a thread has in hand for its new writes.
//!
//! The metadata thread puts free clusters in, the thread that the reserve belongs to takes them out, and the
//! metadata thread takes back what is left when the store runs full. Meanwhile they count as free in what the
//! store says of itself, and as used in what it gives out. The lock is held for a few instructions. Not
//! promised: that a reserve holds anything.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::shared::locked;

/// Clusters that a thread asks for at once, at most.
const MOST: usize = 64;

/// A free cluster, and what is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fresh {
    pub(crate) cluster: u32,
    /// It reads zero: durably so when a flush with a higher number than this has ended well.
    pub(crate) zero: Option<u64>,
    /// Zeroes were written into it ahead, which take space of the host.
    pub(crate) written: bool,
}

/// The clusters that one thread has in hand.
#[derive(Default)]
pub(crate) struct Reserve {
    clusters: Mutex<Vec<Fresh>>,
    /// How many it got when it was last filled.
    last: AtomicUsize,
}

impl Reserve {
    /// Takes the one that came first.
    pub(crate) fn take(&self) -> Option<Fresh> {
        let mut clusters = locked(&self.clusters);
        (!clusters.is_empty()).then(|| clusters.remove(0))
    }

    /// Puts clusters in.
    pub(crate) fn put(&self, some: impl IntoIterator<Item = Fresh>) {
        locked(&self.clusters).extend(some);
    }

    /// Takes everything back; the next time it is filled it gets little again.
    pub(crate) fn recall(&self) -> Vec<Fresh> {
        self.last.store(0, Ordering::Relaxed);
        std::mem::take(&mut locked(&self.clusters))
    }

    /// How many it holds.
    pub(crate) fn len(&self) -> usize {
        locked(&self.clusters).len()
    }

    /// How many it should get now: twice what it got the last time, none while it holds more than half of
    /// that.
    pub(crate) fn wants(&self) -> usize {
        let last = self.last.load(Ordering::Relaxed);
        let held = self.len();
        if held > last / 2 {
            return 0;
        }
        let next = (last * 2).clamp(1, MOST);
        self.last.store(next, Ordering::Relaxed);
        next - held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(reserve: &Reserve, from: u32, count: usize) {
        reserve.put((from..).take(count).map(|cluster| Fresh { cluster, zero: None, written: false }));
    }

    #[test]
    fn who_needs_many_gets_more_each_time_and_starts_anew_after_a_recall() {
        let reserve = Reserve::default();
        let mut got = Vec::new();
        for _ in 0..9 {
            let wants = reserve.wants();
            got.push(wants);
            some(&reserve, 1, wants);
            while reserve.take().is_some() {}
        }
        assert_eq!(got, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        some(&reserve, 1, 40);
        assert_eq!(reserve.wants(), 0, "it holds more than half");
        assert_eq!(reserve.recall().len(), 40);
        assert_eq!(reserve.wants(), 1);
    }

    #[test]
    fn clusters_leave_in_the_order_in_which_they_came() {
        let reserve = Reserve::default();
        some(&reserve, 7, 3);
        assert_eq!([(); 3].map(|()| reserve.take().map(|one| one.cluster)), [Some(7), Some(8), Some(9)]);
    }
}
