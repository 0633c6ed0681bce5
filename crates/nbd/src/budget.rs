//! A memory budget shared by all connections of a server: a count of bytes, and a queue of tasks that wait for some.
//!
//! Shared by all threads of the server. Each connection has a small separate allowance, so only large or many
//! requests come here. First come, first served: small requests do not pass a large one, except those of an
//! [origin](Origin) that has its whole share already.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::origin::Origin;
use crate::waiting::{Entry, Ticket, Waiting};

/// A budget in bytes.
pub(crate) struct Budget {
    limit: usize,
    /// The most of one origin.
    share: usize,
    state: Mutex<State>,
    /// Set while a connection waits; read without the lock.
    wanted: AtomicBool,
}

#[derive(Default)]
struct State {
    lent: usize,
    /// The same by origin, for those that have any.
    lent_to: BTreeMap<Origin, usize>,
    waiting: Waiting<Wanted>,
}

/// Bytes wanted, and for which origin.
#[derive(Clone, Copy)]
struct Wanted {
    origin: Origin,
    bytes: usize,
}

impl State {
    fn lent_to(&self, origin: Origin) -> usize {
        self.lent_to.get(&origin).copied().unwrap_or(0)
    }

    fn lend(&mut self, wanted: Wanted) {
        self.lent += wanted.bytes;
        *self.lent_to.entry(wanted.origin).or_default() += wanted.bytes;
    }

    fn take_back(&mut self, lent: Wanted) {
        self.lent -= lent.bytes;
        if let Some(of_origin) = self.lent_to.get_mut(&lent.origin) {
            *of_origin -= lent.bytes;
            if *of_origin == 0 {
                self.lent_to.remove(&lent.origin);
            }
        }
    }
}

impl Budget {
    /// A budget of which one origin gets at most `share`.
    pub(crate) fn new(limit: usize, share: usize) -> Arc<Budget> {
        let share = share.min(limit);
        Arc::new(Budget { limit, share, state: Mutex::default(), wanted: AtomicBool::new(false) })
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

    /// True if the origin's share has so many bytes left.
    fn is_within_share(&self, state: &State, wanted: Wanted) -> bool {
        wanted.bytes <= self.share - state.lent_to(wanted.origin)
    }

    /// Lends `bytes`, if none waits and there are enough.
    pub(crate) fn try_take(self: &Arc<Budget>, origin: Origin, bytes: usize) -> Option<Lease> {
        let wanted = Wanted { origin, bytes };
        let mut state = self.state();
        let there_are = bytes <= self.limit - state.lent && self.is_within_share(&state, wanted);
        if !state.waiting.is_empty() || !there_are {
            return None;
        }
        state.lend(wanted);
        Some(Lease { budget: self.clone(), origin, bytes })
    }

    /// Waits for `bytes`, at most an origin's share. Dropping the future gives up the place in the queue.
    pub(crate) async fn take(self: &Arc<Budget>, origin: Origin, bytes: usize) -> Lease {
        let wanted = Wanted { origin, bytes: bytes.min(self.share) };
        if let Some(lease) = self.try_take(origin, wanted.bytes) {
            return lease;
        }
        let ticket = {
            let mut state = self.state();
            let ticket = state.waiting.push(wanted);
            // There may be room since the check above.
            self.admit(state);
            ticket
        };
        let place = Place { budget: self, ticket, wanted };
        poll_fn(|cx| self.state().waiting.poll(ticket, cx)).await;
        place.into_lease()
    }

    /// Takes bytes back and lends them to waiting connections.
    fn give(&self, lent: Wanted) {
        let mut state = self.state();
        state.take_back(lent);
        self.admit(state);
    }

    fn admit(&self, mut state: MutexGuard<'_, State>) {
        // Taken out of the state, which the closure below reads and changes.
        let mut waiting = std::mem::take(&mut state.waiting);
        // Origins with a waiting request: their later requests wait too.
        let mut passed = BTreeSet::new();
        let wakers = waiting.admit(|_, wanted, _| {
            if passed.contains(&wanted.origin) || !self.is_within_share(&state, *wanted) {
                passed.insert(wanted.origin);
                return Entry::Passed;
            }
            if wanted.bytes > self.limit - state.lent {
                return Entry::Blocks;
            }
            state.lend(*wanted);
            Entry::Admitted
        });
        self.wanted.store(!waiting.is_empty(), Ordering::Relaxed);
        state.waiting = waiting;
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A place in the queue, or the bytes that were lent to it and not yet fetched.
struct Place<'a> {
    budget: &'a Arc<Budget>,
    ticket: Ticket,
    wanted: Wanted,
}

impl Place<'_> {
    /// The lease of a place that was admitted.
    fn into_lease(mut self) -> Lease {
        let bytes = std::mem::take(&mut self.wanted.bytes);
        Lease { budget: self.budget.clone(), origin: self.wanted.origin, bytes }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.wanted.bytes == 0 {
            return;
        }
        let mut state = self.budget.state();
        if !state.waiting.give_up(self.ticket) {
            state.take_back(self.wanted);
        }
        // The next one in the queue may fit.
        self.budget.admit(state);
    }
}

/// Lent bytes; returned when dropped.
pub(crate) struct Lease {
    budget: Arc<Budget>,
    origin: Origin,
    bytes: usize,
}

impl Lease {
    /// An empty lease.
    pub(crate) fn none(budget: &Arc<Budget>, origin: Origin) -> Lease {
        Lease { budget: budget.clone(), origin, bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds another lease of the same origin to this one.
    pub(crate) fn join(&mut self, mut other: Lease) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.budget.give(Wanted { origin: self.origin, bytes: self.bytes - bytes });
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

    const ANY: Origin = Origin::Unknown;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_large_request_is_not_passed_by_small_ones() {
        let budget = Budget::new(100, 100);
        let first = now(budget.take(ANY, 60)).expect("there is room");
        let mut large = Box::pin(budget.take(ANY, 80));
        let mut small = Box::pin(budget.take(ANY, 10));
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
        let budget = Budget::new(100, 100);
        let _first = now(budget.take(ANY, 60)).expect("there is room");
        let mut large = Box::pin(budget.take(ANY, 80));
        let mut small = Box::pin(budget.take(ANY, 10));
        assert!(now(&mut large).is_none() && now(&mut small).is_none());
        drop(large);
        assert!(now(&mut small).is_some());
    }

    #[test]
    fn what_was_granted_and_not_fetched_comes_back() {
        let budget = Budget::new(100, 100);
        let first = now(budget.take(ANY, 100)).expect("there is room");
        let mut second = Box::pin(budget.take(ANY, 100));
        assert!(now(&mut second).is_none());
        drop(first);
        assert_eq!(budget.lent(), 100);
        drop(second);
        assert_eq!(budget.lent(), 0);
    }

    #[test]
    fn more_than_there_is_waits_for_all_of_it() {
        let budget = Budget::new(100, 100);
        assert_eq!(now(budget.take(ANY, 1000)).expect("it is cut to the share").bytes(), 100);
    }
    #[test]
    fn an_origin_with_its_whole_share_waits_and_the_others_pass() {
        let budget = Budget::new(100, 60);
        let first = now(budget.take(ANY, 60)).expect("there is room");
        let mut more = Box::pin(budget.take(ANY, 30));
        let mut others = Box::pin(budget.take(Origin::User(1), 40));
        assert!(now(&mut more).is_none(), "its share is used up");
        let others = now(&mut others).expect("another origin's bytes");
        assert!(now(budget.take(Origin::User(2), 1)).is_none(), "there is no more");
        drop(first);
        let more = now(&mut more).expect("its share is free again");
        drop((more, others));
        assert_eq!((budget.lent(), budget.is_wanted()), (0, false));
        assert!(budget.state().lent_to.is_empty());
    }
}
