//! A memory budget shared by all connections of a server: a count of bytes, and queues of tasks that wait for some.
//!
//! Shared by all threads of the server. Each connection has a small separate allowance, so only large or many
//! requests come here. First come, first served: small requests do not pass a large one, except those of an
//! [origin](Origin) that has its whole share already. What is given back costs the same however many wait: each
//! origin has a queue of its own, and only the first of each that its share has room for is looked at.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::origin::Origin;

/// The most bytes of one connection, except for a single request.
pub(crate) const CONNECTION_LIMIT: usize = 64 << 20;

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
    /// Origins that have bytes or wait for some: no more than there are connections.
    origins: BTreeMap<Origin, OfOrigin>,
    /// The first in the queue of each origin whose share has room for it.
    fitting: BTreeMap<Ticket, Origin>,
    /// Number of tasks that wait.
    waiting: usize,
    /// Number of tasks that came to wait.
    tickets: u64,
    /// Queues looked at so far.
    #[cfg(test)]
    looks: usize,
}

/// A place in the order in which tasks came.
type Ticket = u64;

#[derive(Default)]
struct OfOrigin {
    lent: usize,
    waiting: BTreeMap<Ticket, Waiting>,
    /// The first of these, if it is among those that fit.
    fitting: Option<Ticket>,
}

/// A task that waits.
struct Waiting {
    bytes: usize,
    /// Of its last poll.
    waker: Option<Waker>,
}

/// Bytes wanted, and for which origin.
#[derive(Clone, Copy)]
struct Wanted {
    origin: Origin,
    bytes: usize,
}

impl State {
    fn lent_to(&self, origin: Origin) -> usize {
        self.origins.get(&origin).map_or(0, |of_origin| of_origin.lent)
    }

    /// Changes what an origin has or waits for.
    fn change<T>(&mut self, origin: Origin, share: usize, change: impl FnOnce(&mut OfOrigin) -> T) -> T {
        #[cfg(test)]
        (self.looks += 1);
        let of_origin = self.origins.entry(origin).or_default();
        let changed = change(of_origin);
        let room = share - of_origin.lent;
        let first = of_origin.waiting.first_key_value();
        let fitting = first.filter(|(_, waiting)| waiting.bytes <= room).map(|(ticket, _)| *ticket);
        let before = std::mem::replace(&mut of_origin.fitting, fitting);
        if of_origin.lent == 0 && of_origin.waiting.is_empty() {
            self.origins.remove(&origin);
        }
        if before != fitting {
            if let Some(ticket) = before {
                self.fitting.remove(&ticket);
            }
            if let Some(ticket) = fitting {
                self.fitting.insert(ticket, origin);
            }
        }
        changed
    }

    /// Ready if the task was admitted; otherwise it is woken when it is.
    fn poll(&mut self, origin: Origin, ticket: Ticket, cx: &Context<'_>) -> Poll<()> {
        let of_origin = self.origins.get_mut(&origin);
        match of_origin.and_then(|of_origin| of_origin.waiting.get_mut(&ticket)) {
            None => Poll::Ready(()),
            Some(waiting) => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
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

    /// Lends `bytes`, if none waits and there are enough.
    pub(crate) fn try_take(self: &Arc<Budget>, origin: Origin, bytes: usize) -> Option<Lease> {
        let mut state = self.state();
        let there_are = bytes <= self.limit - state.lent && bytes <= self.share - state.lent_to(origin);
        if state.waiting > 0 || !there_are {
            return None;
        }
        state.lent += bytes;
        state.change(origin, self.share, |of_origin| of_origin.lent += bytes);
        Some(Lease { budget: self.clone(), origin, bytes })
    }

    /// Waits for `bytes`, at most an origin's share. Dropping the future gives up the place in the queue.
    pub(crate) async fn take(self: &Arc<Budget>, origin: Origin, bytes: usize) -> Lease {
        let wanted = Wanted { origin, bytes: bytes.min(self.share) };
        if let Some(lease) = self.try_take(origin, wanted.bytes) {
            return lease;
        }
        let place = Place { budget: self, ticket: self.wait(wanted), wanted };
        poll_fn(|cx| self.state().poll(origin, place.ticket, cx)).await;
        place.into_lease()
    }

    /// Puts a task at the end of its queue.
    fn wait(&self, wanted: Wanted) -> Ticket {
        let mut state = self.state();
        let ticket = state.tickets;
        state.tickets += 1;
        state.waiting += 1;
        state.change(wanted.origin, self.share, |of_origin| {
            of_origin.waiting.insert(ticket, Waiting { bytes: wanted.bytes, waker: None })
        });
        // There may be room since it was found that there was none.
        self.admit(state);
        ticket
    }

    /// Takes bytes back and lends them to waiting connections.
    fn give(&self, lent: Wanted) {
        let mut state = self.state();
        state.lent -= lent.bytes;
        state.change(lent.origin, self.share, |of_origin| of_origin.lent -= lent.bytes);
        self.admit(state);
    }

    /// Gives up a place in a queue, or what was lent to it.
    fn give_up(&self, ticket: Ticket, wanted: Wanted) {
        let mut state = self.state();
        let waited = state.change(wanted.origin, self.share, |of_origin| {
            let waited = of_origin.waiting.remove(&ticket).is_some();
            if !waited {
                of_origin.lent -= wanted.bytes;
            }
            waited
        });
        if waited {
            state.waiting -= 1;
        } else {
            state.lent -= wanted.bytes;
        }
        // The next one may fit.
        self.admit(state);
    }

    /// Lends to those that wait, in the order in which they came; those whose origin has its whole share are passed.
    fn admit(&self, mut state: MutexGuard<'_, State>) {
        let mut wakers = Vec::new();
        while let Some((ticket, origin)) = state.fitting.first_key_value().map(|(t, origin)| (*t, *origin)) {
            let room = self.limit - state.lent;
            let admitted = state.change(origin, self.share, |of_origin| {
                let first = of_origin.waiting.first_entry().filter(|first| first.get().bytes <= room)?;
                debug_assert_eq!(*first.key(), ticket);
                let admitted = first.remove();
                of_origin.lent += admitted.bytes;
                Some(admitted)
            });
            let Some(admitted) = admitted else { break };
            state.lent += admitted.bytes;
            state.waiting -= 1;
            wakers.extend(admitted.waker);
        }
        self.wanted.store(state.waiting > 0, Ordering::Relaxed);
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
        if self.wanted.bytes > 0 {
            self.budget.give_up(self.ticket, self.wanted);
        }
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

    use proptest::prelude::*;

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
        assert!(budget.state().origins.is_empty());
    }

    /// Bytes that come and go while many wait: how many queues each look at.
    fn looks_while(budget: &Arc<Budget>, origin: Origin) -> usize {
        budget.state().looks = 0;
        drop(now(budget.take(origin, 1)).expect("there is room"));
        budget.state().looks
    }

    #[test]
    fn bytes_that_come_and_go_cost_the_same_with_10_requests_waiting_as_with_100_000() {
        for many in [10, 1000, 100_000] {
            let budget = Budget::new(100, 60);
            // All of one origin, which has its whole share.
            let whole = now(budget.take(ANY, 60)).expect("there is room");
            let mut waiting: Vec<_> = (0..many).map(|_| Box::pin(budget.take(ANY, 30))).collect();
            assert!(waiting.iter_mut().all(|one| now(one).is_none()));
            assert!(looks_while(&budget, Origin::User(1)) <= 4);
            // Each of another origin, and the first of them does not fit.
            let mut others: Vec<_> =
                (0..many).map(|n| Box::pin(budget.take(Origin::Network(n), 50))).collect();
            assert!(others.iter_mut().all(|one| now(one).is_none()));
            budget.state().looks = 0;
            drop(whole);
            assert!(budget.state().looks <= 5, "the two of the origin that fit, and the next that does not");
            // Given up from the middle of its queue.
            budget.state().looks = 0;
            drop(waiting.swap_remove(waiting.len() / 2));
            assert!(budget.state().looks <= 2);
            drop((waiting, others));
            let state = budget.state();
            assert!(state.origins.is_empty() && state.fitting.is_empty() && state.waiting == 0);
        }
    }

    /// What happens to requests: one comes, or one that waits or has its bytes ends.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take { origin: u32, bytes: usize },
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u32, 1..50_usize).prop_map(|(origin, bytes)| Step::Take { origin, bytes }),
            (0..20_usize).prop_map(Step::End),
        ]
    }

    /// The rule, on a list of all requests that have not ended, in the order in which they came.
    fn admit_by_rule(requests: &mut [(u32, usize, bool)], limit: usize, share: usize) {
        let mut passed = Vec::new();
        for at in 0..requests.len() {
            let (origin, bytes, has) = requests[at];
            let lent = |of: Option<u32>| -> usize {
                let lent = requests.iter().filter(|one| one.2 && of.is_none_or(|of| one.0 == of));
                lent.map(|one| one.1).sum()
            };
            if has {
                continue;
            }
            if passed.contains(&origin) || lent(Some(origin)) + bytes > share {
                passed.push(origin);
            } else if lent(None) + bytes > limit {
                return;
            } else {
                requests[at].2 = true;
            }
        }
    }

    proptest! {
        #[test]
        fn requests_are_admitted_in_order_but_for_those_of_origins_with_their_whole_share(
            steps in proptest::collection::vec(step(), 1..100),
        ) {
            let (limit, share) = (100, 60);
            let budget = &Budget::new(limit, share);
            let mut requests = Vec::new();
            let mut futures = Vec::new();
            let mut leases = Vec::new();
            for step in steps {
                match step {
                    Step::Take { origin, bytes } => {
                        requests.push((origin, bytes, false));
                        futures.push(Box::pin(budget.take(Origin::User(origin), bytes)));
                        leases.push(None);
                    }
                    Step::End(at) if at < requests.len() => {
                        requests.remove(at);
                        // Before its future: a lease that was fetched is not there any more.
                        leases.remove(at);
                        drop(futures.remove(at));
                    }
                    Step::End(_) => {}
                }
                admit_by_rule(&mut requests, limit, share);
                for (at, request) in requests.iter().enumerate() {
                    if leases[at].is_none() {
                        leases[at] = now(&mut futures[at]);
                    }
                    prop_assert_eq!(leases[at].is_some(), request.2);
                }
                prop_assert_eq!(budget.is_wanted(), requests.iter().any(|request| !request.2));
            }
        }
    }
}
