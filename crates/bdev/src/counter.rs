//! Waits for the end of several things under way, or of one that ends once.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The number of things under way; clones are the same count. For any thread.
#[derive(Clone, Default, Debug)]
pub struct Counter(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    count: usize,
    waiting: Vec<Waker>,
}

/// One thing under way, until dropped.
#[derive(Debug)]
pub struct Counted(Counter);

impl Counter {
    /// Counts one more.
    pub fn begin(&self) -> Counted {
        self.state().count += 1;
        Counted(self.clone())
    }

    /// The count.
    pub fn count(&self) -> usize {
        self.state().count
    }

    /// Waits until nothing is under way.
    ///
    /// Dropping the future stops the wait.
    pub async fn none(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.count == 0 {
                return Poll::Ready(());
            }
            // A wait may be polled for other reasons too; its waker is stored once.
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state();
            state.count -= 1;
            if state.count == 0 { std::mem::take(&mut state.waiting) } else { Vec::new() }
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// An event that happens once.
#[derive(Debug)]
pub struct Ending {
    counter: Counter,
    there: Mutex<Option<Counted>>,
}

impl Default for Ending {
    fn default() -> Ending {
        let counter = Counter::default();
        let there = Mutex::new(Some(counter.begin()));
        Ending { counter, there }
    }
}

impl Ending {
    /// Marks it as happened.
    pub fn set(&self) {
        let there = self.there.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(there);
    }

    /// Waits until it has happened.
    pub async fn seen(&self) {
        self.counter.none().await;
    }
}
