//! The requests of a connection that are under way: futures of one type in reused places.
//!
//! Owned by the connection's task. Each place has one allocation for its future and a waker, both kept, so
//! that a warm connection allocates nothing; only futures that were woken are polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Requests under way at one time.
pub(crate) const MAX_REQUESTS: usize = 128;

/// Places kept when no request is under way.
const KEPT: usize = 8;

const WORDS: usize = MAX_REQUESTS / 64;

/// The futures to poll, and the task that polls them.
#[derive(Default)]
struct Woken {
    places: [AtomicU64; WORDS],
    task: Mutex<Option<Waker>>,
}

struct PlaceWaker {
    woken: Arc<Woken>,
    place: usize,
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let bit = 1 << (self.place % 64);
        // Only the first bit of a word wakes the task, which then sees the others too.
        if self.woken.places[self.place / 64].fetch_or(bit, Ordering::AcqRel) == 0 {
            let task = self.woken.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
            task.into_iter().for_each(Waker::wake);
        }
    }
}

struct Place<F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
}

/// The futures of a connection.
pub(crate) struct Slots<F> {
    places: Vec<Place<F>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// As stored in `woken`.
    task: Option<Waker>,
}

impl<F: Future> Slots<F> {
    pub(crate) fn new() -> Slots<F> {
        Slots { places: Vec::new(), free: Vec::new(), woken: Arc::default(), task: None }
    }

    /// Futures under way.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Sets the task to wake; call it first, each time the task is polled.
    pub(crate) fn belong_to(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            *self.woken.task.lock().unwrap_or_else(PoisonError::into_inner) = self.task.clone();
        }
    }

    /// Starts a future; returns its output if it ends at once. At most [`MAX_REQUESTS`] at a time.
    pub(crate) fn start(&mut self, future: F) -> Option<F::Output> {
        let place = self.free.pop().unwrap_or_else(|| {
            let place = self.places.len();
            assert!(place < MAX_REQUESTS, "the connection counts its requests");
            let waker = Arc::new(PlaceWaker { woken: self.woken.clone(), place }).into();
            self.places.push(Place { future: Box::pin(None), waker });
            place
        });
        self.places[place].future.set(Some(future));
        self.poll(place)
    }

    fn poll(&mut self, place: usize) -> Option<F::Output> {
        let Place { future, waker } = self.places.get_mut(place)?;
        // A late waker finds nothing, or the next future.
        let running = future.as_mut().as_pin_mut()?;
        let Poll::Ready(output) = running.poll(&mut Context::from_waker(waker)) else { return None };
        future.set(None);
        self.free.push(place);
        Some(output)
    }

    /// Has all futures polled the next time.
    pub(crate) fn wake_all(&self) {
        for place in 0..self.places.len() {
            self.woken.places[place / 64].fetch_or(1 << (place % 64), Ordering::AcqRel);
        }
    }

    /// Polls woken futures, and passes their outputs to `each`.
    pub(crate) fn poll_woken(&mut self, mut each: impl FnMut(F::Output)) {
        for word in 0..WORDS {
            if self.woken.places[word].load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = self.woken.places[word].swap(0, Ordering::AcqRel);
            while bits != 0 {
                let place = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Some(output) = self.poll(place) {
                    each(output);
                }
            }
        }
    }

    /// Frees memory that a connection without requests does not need.
    pub(crate) fn rest(&mut self) {
        if self.len() == 0 && self.places.len() > KEPT {
            self.places.truncate(KEPT);
            self.free.clear();
            self.free.extend(0..KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;

    /// Ends when its turn has come; counts how often it was asked.
    async fn turn(number: usize, turns: Rc<Cell<usize>>, wakers: Rc<Cell<Vec<Waker>>>) -> usize {
        poll_fn(|cx| {
            if turns.get() > number {
                return Poll::Ready(number);
            }
            let mut all = wakers.take();
            all.push(cx.waker().clone());
            wakers.set(all);
            Poll::Pending
        })
        .await
    }

    #[test]
    fn each_future_ends_once_and_places_are_used_again() {
        let (turns, wakers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(Vec::new())));
        let mut slots = Slots::new();
        slots.belong_to(&Context::from_waker(Waker::noop()));
        for round in 0..3 {
            turns.set(0);
            for number in 0..MAX_REQUESTS {
                assert_eq!(slots.start(turn(number, turns.clone(), wakers.clone())), None);
            }
            assert_eq!(slots.len(), MAX_REQUESTS);
            let mut ended = Vec::new();
            for number in 0..MAX_REQUESTS {
                turns.set(number + 1);
                wakers.take().into_iter().for_each(Waker::wake);
                slots.poll_woken(|number| ended.push(number));
            }
            assert_eq!(ended, (0..MAX_REQUESTS).collect::<Vec<_>>(), "round {round}");
            assert_eq!((slots.len(), slots.places.len()), (0, MAX_REQUESTS));
        }
        slots.rest();
        assert_eq!((slots.len(), slots.places.len()), (0, KEPT));
        turns.set(1);
        assert_eq!(slots.start(turn(0, turns.clone(), wakers.clone())), Some(0));
    }

    #[test]
    fn a_late_waker_of_a_place_that_was_freed_does_no_harm() {
        let (turns, wakers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(Vec::new())));
        let mut slots = Slots::new();
        for number in 0..MAX_REQUESTS {
            slots.start(turn(number, turns.clone(), wakers.clone()));
        }
        turns.set(MAX_REQUESTS);
        let late = wakers.take();
        late.iter().for_each(Waker::wake_by_ref);
        let mut ended = 0;
        slots.poll_woken(|_| ended += 1);
        slots.rest();
        late.into_iter().for_each(Waker::wake);
        slots.poll_woken(|_| ended += 1);
        assert_eq!(ended, MAX_REQUESTS);
    }
}
