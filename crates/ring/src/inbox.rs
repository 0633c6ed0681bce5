//! A queue for OS threads that are not reactors: any number of producers, one consumer.
//!
//! The slow way in, and the exit protocol: one lock orders [`close`](Inbox::close) and a push, so a value is
//! either taken by the consumer, at the latest when it closes, or returned to its sender; none is lost.
//! Values wait in lines that take turns, and the consumer limits how many it takes.

use std::collections::VecDeque;

use crate::lines::Lines;
use crate::primitive::{AtomicUsize, Mutex, Ordering};

/// A multi-producer queue that can be closed. FIFO per producer and line.
pub struct Inbox<T> {
    /// A hint that saves the consumer the lock; the queue decides.
    len: AtomicUsize,
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    open: bool,
    lines: Lines<T>,
}

/// The inbox is closed; the value is returned.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed<T>(pub T);

impl<T> Default for Inbox<T> {
    fn default() -> Inbox<T> {
        Inbox::new()
    }
}

impl<T> Inbox<T> {
    /// Open and empty.
    pub fn new() -> Inbox<T> {
        let queue = Queue { open: true, lines: Lines::new() };
        Inbox { len: AtomicUsize::new(0), queue: Mutex::new(queue) }
    }

    /// Puts a value at the end of its line; lines are numbered from 0, without large gaps.
    ///
    /// # Errors
    /// The value is returned once the inbox is closed.
    pub fn push(&self, line: usize, value: T) -> Result<(), Closed<T>> {
        let mut queue = self.lock();
        if !queue.open {
            return Err(Closed(value));
        }
        queue.lines.push(line, value);
        self.len.store(queue.lines.len(), Ordering::Release);
        Ok(())
    }

    /// Moves up to `budget` values to the end of `into`.
    pub fn take(&self, budget: usize, into: &mut VecDeque<T>) {
        if !self.is_empty() {
            self.move_out(&mut self.lock(), budget, into);
        }
    }

    /// Refuses all later pushes and moves the remaining values to the end of `into`.
    pub fn close(&self, into: &mut VecDeque<T>) {
        let mut queue = self.lock();
        queue.open = false;
        self.move_out(&mut queue, usize::MAX, into);
    }

    fn move_out(&self, queue: &mut Queue<T>, budget: usize, into: &mut VecDeque<T>) {
        let next = || queue.lines.pop().map(|(_, value)| value);
        into.extend(std::iter::from_fn(next).take(budget));
        self.len.store(queue.lines.len(), Ordering::Release);
    }

    /// True if there is nothing to take now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values waiting.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = Queue<T>> + '_ {
        // The queue is whole at any point: nothing panics while it is locked.
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
