//! Tasks that wait for a condition that other code makes true.
//!
//! Owned by what they wait for, beside its state and under no other lock; for any thread. Each waiter has one
//! place, whose waker is replaced when it is polled again and removed when it is dropped. Not promised: that the
//! condition holds when a waiter is woken. It checks again.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::caught::call_caught;

/// Tasks that wait for a change of some state. Code that changes the state calls [`wake_all`](Self::wake_all)
/// afterwards.
#[derive(Debug, Default)]
pub struct WaitList(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    places: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A place in a [`WaitList`], for a waiter that is not a future and registers its waker by
/// [`wait`](WaitList::wait).
#[derive(Debug)]
pub struct WaitPlace(u64);

impl WaitList {
    /// Waits until `ready` returns a value. It is called at once, and again when the list was woken; no change
    /// is missed that is made before `wake_all` is called. Dropping the future leaves the list.
    pub async fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        if let Some(value) = ready() {
            return value;
        }
        let wait = Wait { list: self, place: self.enter() };
        poll_fn(|cx| {
            // Registered first: a change after the look finds the waker.
            self.wait(&wait.place, cx.waker());
            ready().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Wakes all waiting tasks, in the order in which they came. Call it after the change, and without a lock that a
    /// waker may take.
    pub fn wake_all(&self) {
        self.take().for_each(|waker| call_caught(|| waker.wake()));
    }

    /// Takes the wakers, for a caller that may call them only later.
    pub fn take(&self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.waiting().wakers).into_values()
    }

    /// A new place. Give it up by [`leave`](Self::leave).
    pub fn enter(&self) -> WaitPlace {
        let mut waiting = self.waiting();
        waiting.places += 1;
        WaitPlace(waiting.places)
    }

    /// Registers `waker` for one call by the next `wake_all`, in place of an earlier one of this place. Check the
    /// state after this call, as it may have changed before it.
    pub fn wait(&self, place: &WaitPlace, waker: &Waker) {
        let waker = waker.clone();
        let former = self.waiting().wakers.insert(place.0, waker);
        // Its drop may run foreign code: the list is not locked any more.
        drop(former);
    }

    /// What `ready` returns; if that is nothing, `waker` is called by the next `wake_all`.
    pub fn poll<T>(
        &self,
        place: &WaitPlace,
        waker: &Waker,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        ready().or_else(|| {
            self.wait(place, waker);
            let value = ready();
            if value.is_some() {
                self.leave(place);
            }
            value
        })
    }

    /// Forgets the waker of a place. The place may be used again.
    pub fn leave(&self, place: &WaitPlace) {
        let waker = self.waiting().wakers.remove(&place.0);
        drop(waker);
    }

    /// The number of wakers that a `wake_all` would call.
    pub fn len(&self) -> usize {
        self.waiting().wakers.len()
    }

    /// True if no task waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future's place in a list, given up when the future is dropped.
struct Wait<'a> {
    list: &'a WaitList,
    place: WaitPlace,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.list.leave(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Calls {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What happens to one of a few waiters, or to the state for which they wait.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// It is made, or polled again, each time with another waker.
        Poll(usize),
        Drop(usize),
        /// The state changes: waiters for this or a smaller value are ready.
        Reach(u64),
        Wake,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_usize).prop_map(Step::Poll),
            2 => (0..4_usize).prop_map(Step::Drop),
            1 => (0..6_u64).prop_map(Step::Reach),
            1 => Just(Step::Wake),
        ]
    }

    #[derive(Default)]
    struct Waiter<'a> {
        future: Option<Pin<Box<dyn Future<Output = u64> + 'a>>>,
        /// The waker of its last poll, while that one must be called.
        last: Option<Arc<Calls>>,
    }

    proptest! {
        #[test]
        fn a_waiter_has_one_waker_the_last_which_is_called_once_and_a_dropped_one_has_none(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let (list, state) = (&WaitList::default(), &Cell::new(0));
            let mut waiters: Vec<Waiter<'_>> = (0..4).map(|_| Waiter::default()).collect();
            for step in steps {
                match step {
                    Step::Poll(at) => {
                        let wanted = at as u64 + 1;
                        let waiter = &mut waiters[at];
                        let future = waiter.future.get_or_insert_with(|| {
                            Box::pin(list.until(move || (state.get() >= wanted).then(|| state.get())))
                        });
                        let calls = Arc::<Calls>::default();
                        let waker = Waker::from(calls.clone());
                        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                        prop_assert_eq!(polled.is_ready(), state.get() >= wanted);
                        waiter.last = polled.is_pending().then_some(calls);
                        if polled.is_ready() {
                            waiter.future = None;
                        }
                    }
                    Step::Drop(at) => waiters[at] = Waiter::default(),
                    Step::Reach(value) => state.set(value),
                    Step::Wake => {
                        list.wake_all();
                        for last in waiters.iter_mut().filter_map(|waiter| waiter.last.take()) {
                            prop_assert_eq!(last.count(), 1);
                        }
                    }
                }
                let waiting: Vec<_> = waiters.iter().filter_map(|waiter| waiter.last.as_ref()).collect();
                prop_assert_eq!(list.len(), waiting.len());
                // Held here and by the list alone: wakers of earlier polls are gone, and none was called.
                prop_assert!(waiting.iter().all(|last| Arc::strong_count(last) == 2 && last.count() == 0));
            }
        }
    }

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut future = std::pin::pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => return value,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    #[test]
    fn no_waiter_misses_a_change_that_another_os_thread_makes() {
        const CHANGES: usize = 20_000;
        let (list, state) = (WaitList::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let (list, state) = (&list, &state);
            let waiting = move |odd: usize| {
                for value in (odd..CHANGES).step_by(2) {
                    block_on(list.until(|| (state.load(Ordering::Acquire) == value).then_some(())));
                    state.store(value + 1, Ordering::Release);
                    list.wake_all();
                }
            };
            scope.spawn(move || waiting(1));
            waiting(0);
        });
        assert!(list.is_empty());
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_from_being_called() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("as asked");
            }
        }
        let (list, calls) = (WaitList::default(), Arc::<Calls>::default());
        let places = [list.enter(), list.enter()];
        list.wait(&places[0], &Waker::from(Arc::new(Panics)));
        list.wait(&places[1], &Waker::from(calls.clone()));
        list.wake_all();
        assert_eq!(calls.count(), 1);
    }
}
