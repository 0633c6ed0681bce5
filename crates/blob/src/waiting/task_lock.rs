//! A fair lock between tasks of one thread.
//!
//! `!Send`: belongs to the thread that made it. Its guard may be held across an await, since only tasks of the
//! same thread wait for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A lock between tasks, granted in the order of requests.
#[derive(Default)]
pub(crate) struct TaskLock {
    held: Cell<bool>,
    queue: RefCell<VecDeque<Rc<Place>>>,
}

#[derive(Default)]
struct Place {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Holds a [`TaskLock`] until dropped.
pub(crate) struct TaskGuard<'a>(&'a TaskLock);

impl TaskLock {
    /// Waits for the lock. Dropping the future gives up its place in the queue.
    pub(crate) async fn lock(&self) -> TaskGuard<'_> {
        if !self.held.replace(true) {
            return TaskGuard(self);
        }
        let waiting = Waiting { lock: self, place: Rc::default() };
        self.queue.borrow_mut().push_back(waiting.place.clone());
        poll_fn(|cx| {
            if waiting.place.granted.get() {
                return Poll::Ready(());
            }
            *waiting.place.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        waiting.place.granted.set(false);
        TaskGuard(self)
    }

    fn release(&self) {
        let next = self.queue.borrow_mut().pop_front();
        match next {
            None => self.held.set(false),
            Some(place) => {
                place.granted.set(true);
                let waker = place.waker.borrow_mut().take();
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }
}

impl Drop for TaskGuard<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

struct Waiting<'a> {
    lock: &'a TaskLock,
    place: Rc<Place>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.place.granted.get() {
            self.lock.release();
        } else {
            self.lock.queue.borrow_mut().retain(|place| !Rc::ptr_eq(place, &self.place));
        }
    }
}
