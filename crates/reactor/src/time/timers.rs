//! The waits of one thread, sorted by their ends, equal ends by the order of the calls.
//!
//! A wait ends in the first turn that begins at or after its time; if very many end at once, in a later one.

use std::collections::BTreeMap;
use std::task::Waker;

use spindle_engine::Time;

/// When a wait ends, and its number among equals.
pub(crate) type Key = (Time, u64);

/// The waits of one thread.
#[derive(Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<Key, Waker>,
    next: u64,
    /// Kept for its capacity.
    expired: Vec<Waker>,
}

impl Timers {
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|((time, _), _)| *time)
    }

    pub(crate) fn insert(&mut self, time: Time, waker: Waker) -> Key {
        self.next += 1;
        let key = (time, self.next);
        self.waiting.insert(key, waker);
        key
    }

    /// Sets the waker of a wait; returns the previous one, if it differed, to be dropped while nothing of the
    /// thread is borrowed. `None` if the wait is over.
    pub(crate) fn renew(&mut self, key: &Key, waker: &Waker) -> Option<Option<Waker>> {
        let known = self.waiting.get_mut(key)?;
        let other = !known.will_wake(waker);
        Some(other.then(|| std::mem::replace(known, waker.clone())))
    }

    /// Ends a wait early; returns its waker, to be dropped while nothing of the thread is borrowed.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Waker> {
        self.waiting.remove(key)
    }

    /// Takes at most `most` waits that end at `now` or before. Wake them while nothing of the thread is
    /// borrowed, as wakers run foreign code, and [give the list back](Self::keep).
    pub(crate) fn expire(&mut self, now: Time, most: usize) -> Vec<Waker> {
        let mut expired = std::mem::take(&mut self.expired);
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now || expired.len() == most {
                break;
            }
            expired.push(first.remove());
        }
        expired
    }

    /// Keeps a list for its capacity.
    pub(crate) fn keep(&mut self, expired: Vec<Waker>) {
        self.expired = expired;
    }
}
