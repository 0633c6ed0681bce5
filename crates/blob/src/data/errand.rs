//! Requests of a lane that tasks of its thread work on.
//!
//! The lane and its tasks share the list. A request stays in it until its task gives it back, or is dropped
//! with the thread's runtime: the request then ends as aborted. Blocks of a change that was given up are held
//! until its request is back, so that newer changes of them wait, whatever device they come by. Not promised: an
//! order in which requests come back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use spindle_block::{DeviceState, HeldRange, Io, IoErrorKind, Notifier, Operation, Status};
use spindle_mem::Buffers;

use crate::error::BlobError;
use crate::shared::{BlobLocal, BlobShared};

/// The outcome of a request that a task worked on.
pub(super) enum Outcome {
    /// The request has ended.
    Done(Status),
    /// The map has changed: look it up again.
    Again,
}

/// A request that a task works on.
struct Out {
    io: Io,
    /// What it may still change, if it was given up.
    given_up: Option<HeldRange>,
    /// It must end early: it was aborted or given up.
    ends: bool,
    /// The task, if it checks for that.
    task: Option<Waker>,
}

impl Out {
    /// Makes the task end early, if it checks for that.
    fn end(&mut self) {
        self.ends = true;
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

/// Requests with tasks, and on their way back to the lane.
pub(super) struct Errands {
    out: RefCell<Slab<Out>>,
    returned: RefCell<VecDeque<(Out, Outcome)>>,
    /// Set if a task ended without giving its request back: it panicked.
    lost: Cell<bool>,
    lane: Notifier,
}

impl Errands {
    pub(super) fn new(lane: Notifier) -> Rc<Errands> {
        Rc::new(Errands {
            out: RefCell::default(),
            returned: RefCell::default(),
            lost: Cell::new(false),
            lane,
        })
    }

    /// True if a task has ended without giving its request back since this was last asked.
    pub(super) fn lost_any(&self) -> bool {
        self.lost.take()
    }

    /// The next request that came back. One that must end early is not looked up again.
    pub(super) fn take(&self) -> Option<(Io, Outcome)> {
        let (out, outcome) = self.returned.borrow_mut().pop_front()?;
        let outcome = match outcome {
            Outcome::Again if out.ends => Outcome::Done(Err(IoErrorKind::Aborted)),
            outcome => outcome,
        };
        Some((out.io, outcome))
    }

    /// Asks for the early end of requests.
    pub(super) fn abort(&self, ends: impl Fn(&Io) -> bool) {
        self.all(|out| {
            if ends(&out.io) {
                out.end();
            }
        });
    }

    /// Asks for the early end of changes that were given up, and holds their blocks until they have ended.
    pub(super) fn give_up(&self, device: &DeviceState, is_abandoned: impl Fn(&Io) -> bool) {
        self.all(|out| {
            let io = &out.io;
            if out.given_up.is_none() && io.operation().changes_data() && is_abandoned(io) {
                out.given_up = Some(device.hold_range(io.start(), io.count()));
                out.end();
            }
        });
    }

    fn all(&self, mut look: impl FnMut(&mut Out)) {
        self.out.borrow_mut().iter_mut().for_each(|(_, out)| look(out));
        self.returned.borrow_mut().iter_mut().for_each(|(out, _)| look(out));
    }
}

/// A task's request, and what the task knows of its lane, which may be gone before it ends.
pub(super) struct Errand {
    pub(super) blob: Arc<BlobShared>,
    pub(super) here: Rc<BlobLocal>,
    list: Rc<Errands>,
    key: usize,
    given_back: bool,
    block_shift: u32,
}

impl Errand {
    pub(super) fn new(
        io: Io,
        list: &Rc<Errands>,
        blob: &Arc<BlobShared>,
        here: &Rc<BlobLocal>,
        block_shift: u32,
    ) -> Errand {
        let key = list.out.borrow_mut().insert(Out { io, given_up: None, ends: false, task: None });
        let (blob, here, list) = (blob.clone(), here.clone(), list.clone());
        Errand { blob, here, list, key, given_back: false, block_shift }
    }

    fn with<R>(&self, look: impl FnOnce(&mut Out) -> R) -> R {
        look(&mut self.list.out.borrow_mut()[self.key])
    }

    /// What is asked for.
    pub(super) fn operation(&self) -> Operation {
        self.with(|out| out.io.operation())
    }

    /// First byte and length of the request's range, which is inside the blob.
    pub(super) fn range(&self) -> (u64, u64) {
        let (start, count) = self.with(|out| (out.io.start(), out.io.count()));
        (start << self.block_shift, count << self.block_shift)
    }

    /// The request's data; the caller puts it back.
    pub(super) fn take_buffers(&self) -> Buffers {
        self.with(|out| out.io.take_buffers())
    }

    pub(super) fn put_buffers(&self, buffers: Buffers) {
        self.with(|out| out.io.put_buffers(buffers));
    }

    /// Ready when the request must end early.
    pub(super) fn poll_ends(&self, cx: &Context<'_>) -> Poll<()> {
        self.with(|out| {
            if out.ends {
                return Poll::Ready(());
            }
            out.task = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Gives the request back with its result.
    pub(super) fn give_back(mut self, result: Result<Outcome, BlobError>) {
        let outcome = result.unwrap_or_else(|error| {
            self.here.note_failure(&error);
            Outcome::Done(Err(error.kind()))
        });
        let out = self.list.out.borrow_mut().remove(self.key);
        self.given_back = true;
        self.list.returned.borrow_mut().push_back((out, outcome));
        self.list.lane.notify();
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if !self.given_back {
            let out = self.list.out.borrow_mut().remove(self.key);
            // Not while the list is borrowed: the drop calls the lane table.
            drop(out);
            self.list.lost.set(true);
            self.list.lane.notify();
        }
    }
}
