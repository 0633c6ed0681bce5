//! A queue of tasks that wait to be admitted, in the order in which they came.
//!
//! Part of a state under its owner's lock: the owner decides which may pass, and wakes the admitted ones after it
//! has released the lock. A place holds one waker, of the task that looked last.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Tasks that wait, and what each wants.
pub(crate) struct Waiting<T> {
    next: u64,
    places: VecDeque<Place<T>>,
}

/// The number of a place in the queue, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

struct Place<T> {
    ticket: Ticket,
    wants: T,
    waker: Option<Waker>,
}

/// The decision about the task at a place of the queue.
pub(crate) enum Entry {
    /// It is admitted, and leaves the queue.
    Admitted,
    /// It keeps waiting; those after it are asked.
    Passed,
    /// It keeps waiting, and so do all after it.
    Blocks,
}

impl<T> Default for Waiting<T> {
    fn default() -> Waiting<T> {
        Waiting { next: 0, places: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds a task at the end.
    pub(crate) fn push(&mut self, wants: T) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.places.push_back(Place { ticket, wants, waker: None });
        ticket
    }

    /// Ready if the task was admitted; otherwise it is woken when it is.
    pub(crate) fn poll(&mut self, ticket: Ticket, cx: &Context<'_>) -> Poll<()> {
        match self.places.iter_mut().find(|place| place.ticket == ticket) {
            None => Poll::Ready(()),
            Some(place) => {
                place.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes a task that no longer waits out of the queue; false if it was admitted before.
    pub(crate) fn give_up(&mut self, ticket: Ticket) -> bool {
        let place = self.places.iter().position(|place| place.ticket == ticket);
        place.and_then(|index| self.places.remove(index)).is_some()
    }

    /// Asks about each task, from the first: its ticket, what it wants, and what the tasks before it want that keep
    /// waiting. Returns the wakers of the admitted ones: wake them without the lock.
    pub(crate) fn admit(
        &mut self,
        mut ask: impl FnMut(Ticket, &T, &mut dyn Iterator<Item = &T>) -> Entry,
    ) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let mut index = 0;
        while let Some(place) = self.places.get(index) {
            let mut before = self.places.range(..index).map(|place| &place.wants);
            match ask(place.ticket, &place.wants, &mut before) {
                Entry::Admitted => {
                    let admitted = self.places.remove(index).and_then(|place| place.waker);
                    wakers.extend(admitted);
                }
                Entry::Passed => index += 1,
                Entry::Blocks => break,
            }
        }
        wakers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn admitted_tasks_leave_the_queue_and_the_others_keep_their_order() {
        let mut waiting = Waiting::default();
        let tickets: Vec<_> = (0..5).map(|n| waiting.push(n)).collect();
        assert!(tickets.iter().all(|ticket| waiting.poll(*ticket, &cx()).is_pending()));
        let mut seen = Vec::new();
        let wakers = waiting.admit(|_, wants, before| {
            seen.push((*wants, before.copied().collect::<Vec<_>>()));
            match wants {
                0 | 2 => Entry::Admitted,
                1 => Entry::Passed,
                _ => Entry::Blocks,
            }
        });
        assert_eq!(wakers.len(), 2);
        assert_eq!(seen, [(0, vec![]), (1, vec![]), (2, vec![1]), (3, vec![1])]);
        let ready: Vec<_> = tickets.iter().map(|ticket| waiting.poll(*ticket, &cx()).is_ready()).collect();
        assert_eq!(ready, [true, false, true, false, false]);
    }

    #[test]
    fn a_task_that_gives_up_is_told_whether_it_was_admitted() {
        let mut waiting = Waiting::default();
        let (first, second) = (waiting.push(()), waiting.push(()));
        assert!(
            waiting
                .admit(|ticket, (), _| if ticket == first { Entry::Admitted } else { Entry::Blocks })
                .is_empty()
        );
        assert!(!waiting.give_up(first) && waiting.give_up(second));
        assert!(waiting.is_empty());
    }
}
