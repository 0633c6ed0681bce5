//! Counts the requests that a thread has sent to a blob's clusters, so that a change of the map can wait for
//! those that used the old one, and for no others.
//!
//! Belongs to one thread. Requests are counted by the epoch in which they were sent; a waiter begins a new
//! epoch and waits until the earlier ones are over. Counting allocates nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use spindle_reactor::WaitList;

/// The requests under way, by epoch.
#[derive(Default)]
pub(crate) struct Epochs {
    current: Cell<u64>,
    /// Requests of the current epoch.
    count: Cell<usize>,
    /// Earlier epochs that are not over, oldest first: number and requests.
    earlier: RefCell<VecDeque<(u64, usize)>>,
    /// Tasks that wait for the end of an epoch.
    ending: WaitList,
}

/// A request that is under way until this is dropped.
pub(crate) struct UnderWay<'a> {
    epochs: &'a Epochs,
    epoch: u64,
}

impl Epochs {
    /// Counts a sent request; returns the epoch for [`end`](Self::end).
    #[inline]
    pub(crate) fn begin(&self) -> u64 {
        self.count.set(self.count.get() + 1);
        self.current.get()
    }

    /// As `begin`, for a request that a future waits for.
    pub(crate) fn under_way(&self) -> UnderWay<'_> {
        UnderWay { epochs: self, epoch: self.begin() }
    }

    /// Counts the end of a request.
    #[inline]
    pub(crate) fn end(&self, epoch: u64) {
        match epoch == self.current.get() {
            true => self.count.set(self.count.get() - 1),
            false => self.end_earlier(epoch),
        }
    }

    #[cold]
    fn end_earlier(&self, epoch: u64) {
        let mut earlier = self.earlier.borrow_mut();
        if let Some((_, count)) = earlier.iter_mut().find(|(found, _)| *found == epoch) {
            *count -= 1;
        }
        while let Some((_, 0)) = earlier.front() {
            earlier.pop_front();
        }
        drop(earlier);
        self.ending.wake_all();
    }

    /// Begins a new epoch; returns the previous one.
    pub(crate) fn turn(&self) -> u64 {
        let ending = self.current.get();
        self.current.set(ending + 1);
        let count = self.count.take();
        if count > 0 {
            self.earlier.borrow_mut().push_back((ending, count));
        }
        ending
    }

    /// Waits until all requests of `epoch` and of earlier ones have ended.
    pub(crate) async fn over(&self, epoch: u64) {
        let is_over = || self.earlier.borrow().front().is_none_or(|&(oldest, _)| oldest > epoch);
        self.ending.until(|| is_over().then_some(())).await;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.epochs.end(self.epoch);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_wait_is_for_what_was_under_way_and_for_nothing_that_came_later() {
        let epochs = Epochs::default();
        let mut cx = Context::from_waker(Waker::noop());
        let (first, second) = (epochs.begin(), epochs.under_way());
        let one = epochs.turn();
        let mut first_over = pin!(epochs.over(one));
        assert!(first_over.as_mut().poll(&mut cx).is_pending());
        let later = epochs.begin();
        let two = epochs.turn();
        let last = epochs.begin();
        epochs.end(later);
        drop(second);
        assert!(first_over.as_mut().poll(&mut cx).is_pending(), "the first is still under way");
        let mut second_over = pin!(epochs.over(two));
        assert!(second_over.as_mut().poll(&mut cx).is_pending());
        epochs.end(first);
        assert!(first_over.as_mut().poll(&mut cx).is_ready());
        assert!(second_over.as_mut().poll(&mut cx).is_ready());
        epochs.end(last);
        let three = epochs.turn();
        assert!(pin!(epochs.over(three)).poll(&mut cx).is_ready(), "nothing is left");
    }
}
