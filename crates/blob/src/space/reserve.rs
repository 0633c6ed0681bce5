//! A thread's reserve: free clusters that it holds for its new writes.
//!
//! The metadata thread puts free clusters in, the owning thread takes them out, and the metadata thread takes
//! back the rest when the store runs full. Meanwhile they count as free in what the store reports, and as
//! used in what it gives out. The lock is held for a few instructions. Not promised: that a reserve holds
//! anything.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::waiting::locked;

/// The most clusters that a thread asks for at once.
const MOST: usize = 64;

/// A free cluster, and what is known about its contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fresh {
    pub(crate) cluster: u32,
    /// Set if it reads zero: durably once a flush with a higher number than this has succeeded.
    pub(crate) zero: Option<u64>,
    /// Set if zeroes were written into it ahead, which take space of the host.
    pub(crate) written: bool,
}

/// How durable the contents of a new cluster are, apart from the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    /// Written just now.
    New,
    /// The cluster already read zero, as required, since before a flush with a higher number than this.
    Zero(u64),
}

/// The reserve of one thread.
#[derive(Default)]
pub(crate) struct Reserve {
    clusters: Mutex<Vec<Fresh>>,
    /// How many clusters the last filling brought.
    last: AtomicUsize,
}

impl Reserve {
    /// Takes the oldest one.
    pub(crate) fn take(&self) -> Option<Fresh> {
        let mut clusters = locked(&self.clusters);
        (!clusters.is_empty()).then(|| clusters.remove(0))
    }

    /// Puts clusters in.
    pub(crate) fn put(&self, some: impl IntoIterator<Item = Fresh>) {
        locked(&self.clusters).extend(some);
    }

    /// Takes everything back; the next filling is small again.
    pub(crate) fn recall(&self) -> Vec<Fresh> {
        self.last.store(0, Ordering::Relaxed);
        std::mem::take(&mut locked(&self.clusters))
    }

    /// Whether zeroes were written ahead into any that it holds.
    pub(crate) fn holds_written(&self) -> bool {
        locked(&self.clusters).iter().any(|fresh| fresh.written)
    }

    /// How many it holds.
    pub(crate) fn len(&self) -> usize {
        locked(&self.clusters).len()
    }

    /// How many clusters it should get now: twice as many as the last time, none while it holds more than
    /// half of that.
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
    fn a_thread_that_needs_many_gets_more_each_time_and_starts_anew_after_a_recall() {
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
