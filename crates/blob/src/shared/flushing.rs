//! The flushes of a store that are under way, on all threads.
//!
//! A failed flush may have lost what was written before it, and a later successful one does not bring that
//! back. So a flush counts only when every flush that began before its end has ended too, and none has
//! failed: of two overlapping flushes the failed one may report last. Locked for a few instructions.

use std::collections::BTreeSet;
use std::sync::Mutex;

use spindle_reactor::WaitList;

use crate::waiting::locked;

/// The set of flushes under way.
#[derive(Default)]
pub(crate) struct Flushing {
    state: Mutex<State>,
    /// Waits of tasks and lanes for the end of some of them.
    pub(super) ended: WaitList,
}

#[derive(Default)]
struct State {
    begun: u64,
    under_way: BTreeSet<u64>,
}

impl Flushing {
    /// Begins a flush; returns the number for [`end`](Self::end).
    pub(crate) fn begin(&self) -> u64 {
        let mut state = locked(&self.state);
        state.begun += 1;
        let number = state.begun;
        state.under_way.insert(number);
        number
    }

    /// Ends a flush. A failure must have poisoned the store before. Returns how many flushes have begun so
    /// far: this one counts when [all of those have ended](Self::is_settled).
    pub(crate) fn end(&self, number: u64) -> u64 {
        let begun = {
            let mut state = locked(&self.state);
            state.under_way.remove(&number);
            state.begun
        };
        self.ended.wake_all();
        begun
    }

    /// True if the first `begun` flushes have ended.
    pub(crate) fn is_settled(&self, begun: u64) -> bool {
        locked(&self.state).under_way.first().is_none_or(|&oldest| oldest > begun)
    }

    /// Waits until the first `begun` flushes have ended.
    pub(crate) async fn settled(&self, begun: u64) {
        self.ended.until(|| self.is_settled(begun).then_some(())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_flush_counts_when_those_that_overlapped_it_have_ended_and_does_not_wait_for_others() {
        let flushing = Flushing::default();
        let mut cx = Context::from_waker(Waker::noop());
        let (first, second) = (flushing.begin(), flushing.begin());
        let begun = flushing.end(second);
        let mut settled = pin!(flushing.settled(begun));
        assert!(settled.as_mut().poll(&mut cx).is_pending());
        let later = flushing.begin();
        flushing.end(first);
        assert!(settled.as_mut().poll(&mut cx).is_ready());
        let begun = flushing.end(later);
        assert!(pin!(flushing.settled(begun)).poll(&mut cx).is_ready());
    }
}
