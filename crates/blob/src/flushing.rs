//! The flushes of a store that are under way, on all threads.
//!
//! A flush that fails may have lost what was written before it, and one that succeeds later does not bring it
//! back. So a flush counts only when all that began before its end have ended too, and none has failed: of
//! two at once the failed one may be heard of last. Locked for a few instructions.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Poll, Waker};

use crate::shared::locked;

/// Which flushes are under way.
#[derive(Default)]
pub(crate) struct Flushing(Mutex<State>);

#[derive(Default)]
struct State {
    begun: u64,
    under_way: BTreeSet<u64>,
    waiting: Vec<Waker>,
}

/// A flush that is under way; ends when dropped. A failure must have poisoned the store by then.
pub(crate) struct UnderWay<'a> {
    flushing: &'a Flushing,
    number: u64,
}

impl Flushing {
    /// A flush begins.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        let mut state = locked(&self.0);
        state.begun += 1;
        let number = state.begun;
        state.under_way.insert(number);
        UnderWay { flushing: self, number }
    }

    /// Waits until all flushes have ended that had begun when this was first polled.
    pub(crate) async fn settled(&self) {
        let last = locked(&self.0).begun;
        poll_fn(|cx| {
            let mut state = locked(&self.0);
            if state.under_way.first().is_none_or(|&oldest| oldest > last) {
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = locked(&self.flushing.0);
        state.under_way.remove(&self.number);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn who_waits_waits_for_the_flushes_that_had_begun_and_no_others() {
        let flushing = Flushing::default();
        let mut cx = Context::from_waker(Waker::noop());
        let (first, second) = (flushing.begin(), flushing.begin());
        let mut settled = pin!(flushing.settled());
        assert!(settled.as_mut().poll(&mut cx).is_pending());
        let later = flushing.begin();
        drop(first);
        assert!(settled.as_mut().poll(&mut cx).is_pending());
        drop(second);
        assert!(settled.as_mut().poll(&mut cx).is_ready());
        drop(later);
        assert!(pin!(flushing.settled()).poll(&mut cx).is_ready());
    }
}
