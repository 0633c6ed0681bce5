//! The memory of unfinished requests, of all connections of a server together.
//!
//! On the server's thread. When it is spent, the connection that has sent nothing for longest gives its part up and is
//! closed, so that clients that stop in the middle of a request do not keep others out.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

/// The limit, and what connections hold. A handle.
#[derive(Clone)]
pub(crate) struct Unfinished(Rc<Held>);

struct Held {
    most: usize,
    all: Cell<usize>,
    parts: RefCell<Slab<Part>>,
    /// Number of times that any part was set.
    changes: Cell<u64>,
}

/// What one connection holds.
#[derive(Default)]
struct Part {
    bytes: usize,
    /// The number of the change that set it.
    changed: u64,
    given_up: bool,
    waker: Option<Waker>,
}

/// A connection's place among those that hold memory; given back when dropped.
pub(crate) struct Place {
    unfinished: Unfinished,
    key: usize,
}

impl Unfinished {
    /// None held, of at most so many bytes.
    pub(crate) fn new(most: usize) -> Unfinished {
        let (all, changes) = (Cell::new(0), Cell::new(0));
        Unfinished(Rc::new(Held { most, all, parts: RefCell::default(), changes }))
    }

    /// A place for one more connection.
    pub(crate) fn enter(&self) -> Place {
        let key = self.0.parts.borrow_mut().insert(Part::default());
        Place { unfinished: self.clone(), key }
    }

    /// Takes their parts from those that have sent nothing for longest, until the rest fits.
    #[cold]
    fn make_room(&self) {
        let held = &self.0;
        let mut parts = held.parts.borrow_mut();
        while held.all.get() > held.most {
            let holders = parts.iter_mut().map(|(_, part)| part).filter(|part| part.bytes > 0);
            let Some(oldest) = holders.min_by_key(|part| part.changed) else { return };
            held.all.set(held.all.get() - std::mem::take(&mut oldest.bytes));
            oldest.given_up = true;
            oldest.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Place {
    /// The limit for all.
    pub(crate) fn most(&self) -> usize {
        self.unfinished.0.most
    }

    /// Sets what the connection holds. A part that was given up stays so.
    pub(crate) fn set(&self, bytes: usize) {
        let held = &self.unfinished.0;
        let mut parts = held.parts.borrow_mut();
        let part = &mut parts[self.key];
        let bytes = if part.given_up { 0 } else { bytes };
        held.all.set(held.all.get() - std::mem::replace(&mut part.bytes, bytes) + bytes);
        held.changes.set(held.changes.get() + 1);
        part.changed = held.changes.get();
        drop(parts);
        if held.all.get() > held.most {
            self.unfinished.make_room();
        }
    }

    /// Waits for `future`, or returns `None` as soon as the part was given up; the future is dropped then.
    pub(crate) async fn unless_given_up<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            {
                let part = &mut self.unfinished.0.parts.borrow_mut()[self.key];
                if part.given_up {
                    return Poll::Ready(None);
                }
                if !part.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    part.waker = Some(cx.waker().clone());
                }
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let held = &self.unfinished.0;
        let part = held.parts.borrow_mut().remove(self.key);
        held.all.set(held.all.get() - part.bytes);
    }
}
