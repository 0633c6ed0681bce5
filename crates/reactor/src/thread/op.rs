//! Operations of the engine, for tasks and for the layers above.
//!
//! An operation owns its buffers until it completes, whether or not a future still waits for it.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use spindle_engine::{Asker, Completion, Op, Output};

use crate::diagnosis::wait::Wait;
use crate::local::current;
use crate::local::ops::{OpId, OpSink};
use crate::local::thread_core::ThreadCore;

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

/// Asks for the completion of a [quiet send](Op::SendQuietly) as soon as it has ended.
///
/// # Panics
/// Outside a Spindle thread.
pub fn hurry_op(id: OpId) {
    let core = current::expect("hurry_op");
    core.local.hurry(id);
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
            let is_quiet = matches!(op, Op::SendQuietly { .. });
            let id = submit_op(op, &(cell.clone() as Rc<dyn OpSink>), 0);
            if is_quiet {
                // This future waits for it.
                hurry_op(id);
            }
            (self.cell, self.asker) = (Some(cell), asker);
            self.endless = waits_for_peer.then(|| (current::expect("op"), id));
            current::note(Wait::Named("an operation of the engine"));
            return Poll::Pending;
        }
        let cell =
            self.cell.as_ref().expect("an operation is not polled again after it has given its result");
        let mut state = cell.0.borrow_mut();
        let Some(completion) = state.0.take() else {
            state.1 = Some(cx.waker().clone());
            current::note(Wait::Named("an operation of the engine"));
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
