//! Tools for tasks of one thread that wait for each other: a fair lock, a promise, joins of futures.
//!
//! All are `!Send` and belong to the thread that made them. Guards may be held across an await: only tasks of
//! the same thread wait for them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
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

struct Cell1<T> {
    value: Option<T>,
    gone: bool,
    waker: Option<Waker>,
}

/// The half of a promise that resolves it.
pub(crate) struct Resolver<T>(Rc<RefCell<Cell1<T>>>);

/// The half of a promise that waits; resolves to `None` if the other half was dropped.
pub(crate) struct Promise<T>(Rc<RefCell<Cell1<T>>>);

/// Makes a promise.
pub(crate) fn promise<T>() -> (Resolver<T>, Promise<T>) {
    let cell = Rc::new(RefCell::new(Cell1 { value: None, gone: false, waker: None }));
    (Resolver(cell.clone()), Promise(cell))
}

impl<T> Resolver<T> {
    /// Resolves the promise.
    pub(crate) fn resolve(self, value: T) {
        self.0.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Resolver<T> {
    fn drop(&mut self) {
        let waker = {
            let mut cell = self.0.borrow_mut();
            cell.gone = true;
            cell.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Future for Promise<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Option<T>> {
        let mut cell = self.0.borrow_mut();
        if cell.gone {
            return Poll::Ready(cell.value.take());
        }
        cell.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Runs two futures concurrently.
pub(crate) async fn join<A: Future, B: Future>(one: A, other: B) -> (A::Output, B::Output) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(move |cx| {
        if first.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = other.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

/// Runs futures concurrently; returns their outputs in the given order.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (place, output) in running.iter_mut().zip(&mut outputs) {
            let Some(future) = place else { continue };
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => {
                    *output = Some(value);
                    *place = None;
                }
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
