//! A memory budget shared by all connections of a server: a count of bytes with a queue in front.
//!
//! Shared by all threads of the server. A connection has a small allowance of its own, so only large or many
//! requests come here. First come, first served: small requests do not pass a large one.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::waiting::{Entry, Ticket, Waiting};

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
    /// Bytes wanted.
    waiting: Waiting<usize>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, state: Mutex::default(), wanted: AtomicBool::new(false) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes lent.
    pub(crate) fn lent(&self) -> usize {
        self.state().lent
    }

    /// True if a connection waits for bytes.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Lends `bytes`, if none waits and there are enough.
    pub(crate) fn try_take(self: &Arc<Budget>, bytes: usize) -> Option<Lease> {
        let mut state = self.state();
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
        let ticket = {
            let mut state = self.state();
            let ticket = state.waiting.push(bytes);
            // There may be room since the check above.
            self.admit(state);
            ticket
        };
        let place = Place { budget: self, ticket, bytes };
        poll_fn(|cx| self.state().waiting.poll(ticket, cx)).await;
        place.into_lease()
    }

    /// Takes bytes back and lends them to waiting connections.
    fn give(&self, bytes: usize) {
        let mut state = self.state();
        state.lent -= bytes;
        self.admit(state);
    }

    fn admit(&self, mut state: MutexGuard<'_, State>) {
        let State { lent, waiting } = &mut *state;
        let wakers = waiting.admit(|_, bytes, _| match *bytes <= self.limit - *lent {
            true => {
                *lent += *bytes;
                Entry::Admitted
            }
            false => Entry::Blocks,
        });
        self.wanted.store(!waiting.is_empty(), Ordering::Relaxed);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A place in the queue, or the bytes that were lent to it and not yet fetched.
struct Place<'a> {
    budget: &'a Arc<Budget>,
    ticket: Ticket,
    bytes: usize,
}

impl Place<'_> {
    /// The lease of a place that was admitted.
    fn into_lease(mut self) -> Lease {
        Lease { budget: self.budget.clone(), bytes: std::mem::take(&mut self.bytes) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = self.budget.state();
        if !state.waiting.give_up(self.ticket) {
            state.lent -= self.bytes;
        }
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
    use std::task::{Context, Poll};

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
