//! Waits for the end of several things under way, or of one that ends once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spindle_reactor::WaitList;

/// The number of things under way; clones are the same count. For any thread.
#[derive(Clone, Default, Debug)]
pub struct Counter(Arc<State>);

#[derive(Default, Debug)]
struct State {
    count: AtomicUsize,
    waiting: WaitList,
}

/// One thing under way, until dropped.
#[derive(Debug)]
pub struct Counted(Counter);

impl Counter {
    /// Counts one more.
    pub fn begin(&self) -> Counted {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        Counted(self.clone())
    }

    /// The count.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until nothing is under way.
    ///
    /// Dropping the future stops the wait.
    pub async fn none(&self) {
        self.0.waiting.until(|| (self.count() == 0).then_some(())).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let state = &*self.0.0;
        if state.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            state.waiting.wake_all();
        }
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
