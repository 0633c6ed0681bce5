//! Operations of the engine, for the layers above.
//!
//! Owned by the reactor whose driver works on them; a completion is handled on the thread that submitted. An
//! operation owns its buffers until it completes, whether or not a future still waits for it.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use spindle_engine::{Asker, Completion, Op, Output, Token};

use crate::activity::CallKind;
use crate::core::ThreadCore;
use crate::current::{self, Entered};
use crate::task::{drop_caught, panic_message};
use crate::wait::{self, Wait};

/// Identifies an operation in flight. A stale id has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId(pub(crate) Token);

/// Receives completions for which no future waits. Called on the thread that submitted, outside of any task;
/// may submit again. An error is the engine's: [`Op::named`] adds its object.
pub trait OpSink {
    /// Takes the completion of the operation that was submitted with `key`.
    fn complete(&self, key: u64, completion: Completion);
}

struct Entry {
    generation: u32,
    /// True if only cancelling ends it on this side.
    waits_for_peer: bool,
    /// True if the thread's exit waits for it.
    counted: bool,
    core: Rc<ThreadCore>,
    sink: Rc<dyn OpSink>,
    key: u64,
}

/// The operations in flight of one reactor.
#[derive(Default)]
pub(crate) struct Ops {
    entries: RefCell<Slab<Entry>>,
    generation: std::cell::Cell<u32>,
}

impl Ops {
    fn insert(&self, core: Rc<ThreadCore>, op: &Op, sink: Rc<dyn OpSink>, key: u64) -> Token {
        let waits_for_peer = op.waits_for_peer();
        core.ops.set(core.ops.get() + usize::from(!waits_for_peer));
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let index = self.entries.borrow_mut().insert(Entry {
            generation,
            waits_for_peer,
            counted: !waits_for_peer,
            core,
            sink,
            key,
        });
        Token(u64::from(generation) << 32 | index as u64)
    }

    pub(crate) fn is_live(&self, OpId(token): OpId) -> bool {
        let entries = self.entries.borrow();
        entries.get(token.0 as u32 as usize).is_some_and(|entry| entry.generation == (token.0 >> 32) as u32)
    }

    /// The id of the thread that a completion is for.
    pub(crate) fn thread_of(&self, completion: &Completion) -> u64 {
        self.entries.borrow()[completion.token.0 as u32 as usize].core.shared.id
    }

    /// Operations whose completions have not been handed to their sinks.
    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Hands a completion to its sink, on its thread.
    pub(crate) fn complete(&self, completion: Completion) {
        let entry = self.entries.borrow_mut().remove(completion.token.0 as u32 as usize);
        let core = entry.core;
        let _on_thread = Entered::new(&core);
        core.begin(CallKind::Completion, None);
        let call = AssertUnwindSafe(|| entry.sink.complete(entry.key, completion));
        if let Err(payload) = catch_unwind(call) {
            let what = format!("the handling of a completion panicked: {}", panic_message(payload));
            core.local.report(&core.shared, &what);
        }
        // Its captures may panic when dropped.
        drop_caught(entry.sink);
        core.ops.set(core.ops.get() - usize::from(entry.counted));
    }

    /// Takes the operations that would never end by themselves, also those of threads that have exited.
    pub(crate) fn take_endless(&self) -> Vec<Token> {
        let mut entries = self.entries.borrow_mut();
        let once = |(index, entry): (usize, &mut Entry)| {
            let endless = std::mem::take(&mut entry.waits_for_peer);
            endless.then(|| Token(u64::from(entry.generation) << 32 | index as u64))
        };
        entries.iter_mut().filter_map(once).collect()
    }

    /// Number of operations of a thread in flight.
    pub(crate) fn of(&self, core: &Rc<ThreadCore>) -> usize {
        self.entries.borrow().iter().filter(|(_, entry)| Rc::ptr_eq(&entry.core, core)).count()
    }
}

/// Submits `op`; `sink` gets the completion with `key`. Allocates nothing once warm.
///
/// # Panics
/// Outside a Spindle thread.
pub fn submit_op(op: Op, sink: &Rc<dyn OpSink>, key: u64) -> OpId {
    let core = current::expect("submit_op");
    let local = core.local.clone();
    let token = local.ops.insert(core, &op, sink.clone(), key);
    local.driver.borrow_mut().submit(token, op);
    OpId(token)
}

/// Asks an operation to end early. It still completes, with its result or as interrupted.
///
/// # Panics
/// Outside a Spindle thread.
pub fn cancel_op(id: OpId) {
    let core = current::expect("cancel_op");
    core.local.cancel(id);
}

/// Runs `op`; returns its result and the operation, whose buffers it owned. An error [names](Op::named) the
/// operation and its file. Nothing happens before the first poll. Dropping the future detaches the operation:
/// it runs to its end, and keeps its buffers until then. One that [waits for a peer](Op::waits_for_peer) is
/// cancelled, so that it takes no data meant for the next one; data it had taken by then is lost, and a send
/// may have gone out in part. A file that an [`Op::Open`] opens then is closed, and a later open of it waits for
/// that instead of failing.
///
/// # Panics
/// When polled outside a Spindle thread, and when polled again after it has returned its result.
pub fn op(op: Op) -> impl Future<Output = (io::Result<Output>, Op)> {
    OpFuture { op: Some(op), cell: None, endless: None, asker: None }
}

struct OpFuture {
    op: Option<Op>,
    cell: Option<Rc<OpCell>>,
    /// What to cancel if the future is dropped, and where.
    endless: Option<(Rc<ThreadCore>, OpId)>,
    /// For an open: gives it up if the future is dropped.
    asker: Option<Asker>,
}

#[derive(Default)]
struct OpCell(RefCell<(Option<Completion>, Option<Waker>)>);

impl OpSink for OpCell {
    fn complete(&self, _key: u64, completion: Completion) {
        let mut state = self.0.borrow_mut();
        state.0 = Some(completion);
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Future for OpFuture {
    type Output = (io::Result<Output>, Op);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(mut op) = self.op.take() {
            let cell: Rc<OpCell> = Rc::default();
            cell.0.borrow_mut().1 = Some(cx.waker().clone());
            let (waits_for_peer, asker) = (op.waits_for_peer(), op.asker());
            let id = submit_op(op, &(cell.clone() as Rc<dyn OpSink>), 0);
            (self.cell, self.asker) = (Some(cell), asker);
            self.endless = waits_for_peer.then(|| (current::expect("op"), id));
            wait::note(Wait::Named("an operation of the engine"));
            return Poll::Pending;
        }
        let cell =
            self.cell.as_ref().expect("an operation is not polled again after it has given its result");
        let mut state = cell.0.borrow_mut();
        let Some(completion) = state.0.take() else {
            state.1 = Some(cx.waker().clone());
            wait::note(Wait::Named("an operation of the engine"));
            return Poll::Pending;
        };
        drop(state);
        (self.cell, self.asker) = (None, None);
        let Completion { result, op, .. } = completion;
        Poll::Ready((result.map_err(|error| op.named(error)), op))
    }
}

impl Drop for OpFuture {
    fn drop(&mut self) {
        if let Some((core, id)) = self.endless.take() {
            core.local.cancel(id);
        }
        if let Some(asker) = self.asker.take() {
            asker.give_up();
        }
    }
}
