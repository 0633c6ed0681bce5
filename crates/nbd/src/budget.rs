//! A memory budget shared by all connections of a server: a count of bytes with a queue in front.
//!
//! Shared by all threads of the server. A connection has a small allowance of its own, so only large or many
//! requests come here. First come, first served: small requests do not pass a large one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A budget in bytes.
pub(crate) struct Budget {
    limit: usize,
    state: Mutex<State>,
    /// Set while a connection waits; read without the lock.
    wanted: AtomicBool,
}

#[derive(Default)]
struct State {
    lent: usize,
    waiting: VecDeque<Arc<Waiter>>,
}

struct Waiter {
    bytes: usize,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    granted: bool,
    waker: Option<Waker>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, state: Mutex::default(), wanted: AtomicBool::new(false) })
    }

    /// Bytes lent.
    pub(crate) fn lent(&self) -> usize {
        locked(&self.state).lent
    }

    /// True if a connection waits for bytes.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Lends `bytes`, if none waits and there are enough.
    pub(crate) fn try_take(self: &Arc<Budget>, bytes: usize) -> Option<Lease> {
        let mut state = locked(&self.state);
        if !state.waiting.is_empty() || bytes > self.limit - state.lent {
            return None;
        }
        state.lent += bytes;
        Some(Lease { budget: self.clone(), bytes })
    }

    /// Waits for `bytes`, at most the limit. Dropping the future gives up the place in the queue.
    pub(crate) async fn take(self: &Arc<Budget>, bytes: usize) -> Lease {
        let bytes = bytes.min(self.limit);
        if let Some(lease) = self.try_take(bytes) {
            return lease;
        }
        let waiter = {
            let mut state = locked(&self.state);
            let waiter = Arc::new(Waiter { bytes, state: Mutex::default() });
            state.waiting.push_back(waiter.clone());
            // There may be room since the check above.
            self.admit(state);
            waiter
        };
        let place = Place { budget: self, waiter: Some(waiter) };
        place.granted().await
    }

    /// Takes bytes back and lends them to waiting connections.
    fn give(&self, bytes: usize) {
        let mut state = locked(&self.state);
        state.lent -= bytes;
        self.admit(state);
    }

    fn admit(&self, mut state: MutexGuard<'_, State>) {
        let mut wakers = Vec::new();
        while let Some(first) = state.waiting.front()
            && first.bytes <= self.limit - state.lent
        {
            let first = state.waiting.pop_front().expect("it was looked at");
            state.lent += first.bytes;
            let mut waiting = locked(&first.state);
            waiting.granted = true;
            wakers.extend(waiting.waker.take());
        }
        self.wanted.store(!state.waiting.is_empty(), Ordering::Relaxed);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A place in the queue.
struct Place<'a> {
    budget: &'a Arc<Budget>,
    waiter: Option<Arc<Waiter>>,
}

impl Place<'_> {
    async fn granted(mut self) -> Lease {
        poll_fn(|cx| {
            let waiter = self.waiter.as_ref().expect("taken once, below");
            let mut waiting = locked(&waiter.state);
            if waiting.granted {
                return Poll::Ready(());
            }
            waiting.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        let waiter = self.waiter.take().expect("taken once, here");
        Lease { budget: self.budget.clone(), bytes: waiter.bytes }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let mut state = locked(&self.budget.state);
        if locked(&waiter.state).granted {
            state.lent -= waiter.bytes;
        }
        state.waiting.retain(|other| !Arc::ptr_eq(other, &waiter));
        // The next one in the queue may fit.
        self.budget.admit(state);
    }
}

/// Lent bytes; returned when dropped.
pub(crate) struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Lease {
    /// An empty lease.
    pub(crate) fn none(budget: &Arc<Budget>) -> Lease {
        Lease { budget: budget.clone(), bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds another lease to this one.
    pub(crate) fn join(&mut self, mut other: Lease) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.budget.give(self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_large_request_is_not_passed_by_small_ones() {
        let budget = Budget::new(100);
        let first = now(budget.take(60)).expect("there is room");
        let mut large = Box::pin(budget.take(80));
        let mut small = Box::pin(budget.take(10));
        assert!(now(&mut large).is_none() && now(&mut small).is_none());
        assert!(budget.is_wanted());
        drop(first);
        let large = now(&mut large).expect("it was first");
        let small = now(&mut small).expect("both fit");
        assert_eq!(budget.lent(), 90);
        drop((large, small));
        assert_eq!((budget.lent(), budget.is_wanted()), (0, false));
    }

    #[test]
    fn giving_up_lets_those_behind_in() {
        let budget = Budget::new(100);
        let _first = now(budget.take(60)).expect("there is room");
        let mut large = Box::pin(budget.take(80));
        let mut small = Box::pin(budget.take(10));
        assert!(now(&mut large).is_none() && now(&mut small).is_none());
        drop(large);
        assert!(now(&mut small).is_some());
    }

    #[test]
    fn what_was_granted_and_not_fetched_comes_back() {
        let budget = Budget::new(100);
        let first = now(budget.take(100)).expect("there is room");
        let mut second = Box::pin(budget.take(100));
        assert!(now(&mut second).is_none());
        drop(first);
        assert_eq!(budget.lent(), 100);
        drop(second);
        assert_eq!(budget.lent(), 0);
    }

    #[test]
    fn more_than_there_is_waits_for_all_of_it() {
        let budget = Budget::new(100);
        assert_eq!(now(budget.take(1000)).expect("it is cut to the limit").bytes(), 100);
    }
}
