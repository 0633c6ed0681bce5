//! The results of an operation that goes on: connections as they come, bytes as they come.
//!
//! Belongs to the task that waits. Dropping it cancels the operation.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use spindle_engine::{Completion, Op, Output};

use crate::local::current;
use crate::local::ops::{OpId, OpSink};
use crate::local::thread_core::ThreadCore;
use crate::thread::context::waits_for;
use crate::thread::op::submit_op;

/// The results of one operation: see [`results`].
pub struct Results {
    core: Rc<ThreadCore>,
    id: OpId,
    arrivals: Rc<Arrivals>,
}

#[derive(Default)]
struct Arrivals(RefCell<State>);

#[derive(Default)]
struct State {
    came: VecDeque<io::Result<Output>>,
    /// True once the last one has come.
    ended: bool,
    waker: Option<Waker>,
}

impl OpSink for Arrivals {
    fn complete(&self, _key: u64, completion: Completion) {
        let Completion { result, op, more, .. } = completion;
        let mut state = self.0.borrow_mut();
        state.came.push_back(result.map_err(|error| op.named(error)));
        state.ended = !more;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Starts an operation that goes on, such as [`Op::AcceptMany`] or [`Op::RecvMany`], at once; its results come by
/// [`Results::next`]. Results that are not taken wait, with the memory that they hold. Dropping the `Results` cancels
/// the operation; what has come by then and was not taken is lost.
///
/// # Panics
/// Outside a Spindle thread.
pub fn results(op: Op) -> Results {
    let arrivals: Rc<Arrivals> = Rc::default();
    let core = current::expect("results");
    let id = submit_op(op, &(arrivals.clone() as Rc<dyn OpSink>), 0);
    Results { core, id, arrivals }
}

impl Results {
    /// The next result; none after the last. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The operation's own, as its last result.
    pub async fn next(&mut self) -> Option<io::Result<Output>> {
        poll_fn(|cx| {
            let mut state = self.arrivals.0.borrow_mut();
            if let Some(result) = state.came.pop_front() {
                return Poll::Ready(Some(result));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            waits_for("the next result of an operation that goes on");
            Poll::Pending
        })
        .await
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        // An operation that has ended is not there any more.
        self.core.local.cancel(self.id);
    }
}
