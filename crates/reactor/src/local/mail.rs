//! The messages that wait at a thread, in order.
//!
//! Owned by the thread's running half. The standard library's queue moves each message of 64 bytes through a
//! function call; here it is constructed in its place. Grows as needed and stays as large; once warm, nothing is
//! allocated.

use spindle_ring::Call;

/// Room of a queue that got its first message: there may be many threads.
const FIRST: usize = 4;

/// Waiting messages.
#[derive(Default)]
pub(crate) struct Mail {
    /// Its length is a power of two, or 0. From the head on, around the end, `len` places are filled.
    places: Vec<Option<Call>>,
    head: usize,
    len: usize,
}

impl Mail {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the message that `make` returns. Always inlined, so that it is made in its place.
    #[inline(always)]
    pub(crate) fn push(&mut self, make: impl FnOnce() -> Call) {
        if self.len == self.places.len() {
            self.grow();
        }
        let at = (self.head + self.len) & (self.places.len() - 1);
        let before = self.places[at].replace(make());
        // It was empty: there is nothing to drop.
        std::mem::forget(before);
        self.len += 1;
    }

    /// Takes the first one.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Call> {
        let first = self.places.get_mut(self.head)?.take()?;
        self.head = (self.head + 1) & (self.places.len() - 1);
        self.len -= 1;
        Some(first)
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.places.rotate_left(self.head);
        self.head = 0;
        let room = (2 * self.places.len()).max(FIRST);
        self.places.resize_with(room, || None);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use spindle_engine::sim::Rng;

    use super::*;

    #[test]
    fn messages_leave_in_the_order_in_which_they_came_and_each_once() {
        let (mut mail, mut model, mut rng) = (Mail::default(), VecDeque::new(), Rng::new(5));
        let called = Arc::new(Mutex::new(Vec::new()));
        for number in 0..20_000u32 {
            // The queue grows and shrinks in turns.
            if rng.below(100) < 30 + 40 * (number as usize / 1000 % 2) {
                let called = called.clone();
                mail.push(|| Call::new(move || called.lock().unwrap().push(number)));
                model.push_back(number);
            } else {
                let first = mail.pop();
                assert_eq!(first.is_some(), !model.is_empty());
                first.into_iter().for_each(|mut call| call.call_in_place());
                assert_eq!(called.lock().unwrap().pop(), model.pop_front());
            }
            assert_eq!((mail.len(), mail.is_empty()), (model.len(), model.is_empty()));
        }
        drop(mail);
        assert_eq!(Arc::strong_count(&called), 1, "what was not called is dropped");
    }
}
