//! A promise between two tasks of one thread. `!Send`: belongs to the thread that made it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

struct State<T> {
    value: Option<T>,
    gone: bool,
    waker: Option<Waker>,
}

/// The half of a promise that resolves it.
pub(crate) struct Resolver<T>(Rc<RefCell<State<T>>>);

/// The half of a promise that waits; resolves to `None` if the other half was dropped.
pub(crate) struct Promise<T>(Rc<RefCell<State<T>>>);

/// Makes a promise.
pub(crate) fn promise<T>() -> (Resolver<T>, Promise<T>) {
    let cell = Rc::new(RefCell::new(State { value: None, gone: false, waker: None }));
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
