//! A queue for OS threads that are not reactors: any number of producers, one consumer.
//!
//! The slow way in, and the exit protocol: [`close`](Inbox::close) and a push are ordered by one lock,
//! so a value is either taken by the consumer, close included, or given back to its sender. None is
//! lost in between.

use std::collections::VecDeque;

use crate::primitive::{AtomicUsize, Mutex, Ordering};

/// A multi-producer queue that can be closed. FIFO per producer.
pub struct Inbox<T> {
    /// A hint that spares the consumer the lock; the queue decides.
    len: AtomicUsize,
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    open: bool,
    values: VecDeque<T>,
}

/// The inbox is closed; the value comes back.
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
        let queue = Queue { open: true, values: VecDeque::new() };
        Inbox { len: AtomicUsize::new(0), queue: Mutex::new(queue) }
    }

    /// Puts a value at the end.
    ///
    /// # Errors
    /// The value comes back once the inbox is closed.
    pub fn push(&self, value: T) -> Result<(), Closed<T>> {
        let mut queue = self.lock();
        if !queue.open {
            return Err(Closed(value));
        }
        queue.values.push_back(value);
        self.len.store(queue.values.len(), Ordering::Release);
        Ok(())
    }

    /// Moves everything there is to the end of `into`, in order.
    pub fn drain(&self, into: &mut VecDeque<T>) {
        if self.is_empty() {
            return;
        }
        let mut queue = self.lock();
        into.append(&mut queue.values);
        self.len.store(0, Ordering::Release);
    }

    /// Refuses every later push and moves what is left to the end of `into`.
    pub fn close(&self, into: &mut VecDeque<T>) {
        let mut queue = self.lock();
        queue.open = false;
        into.append(&mut queue.values);
        self.len.store(0, Ordering::Release);
    }

    /// Whether there is nothing to take now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values waiting.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = Queue<T>> + '_ {
        // A panic cannot happen while the queue is locked, and would leave it whole.
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
