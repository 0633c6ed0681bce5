//! What ties a lane table to the Spindle thread it lives on: who steps it when nobody else does.
//!
//! A table moves requests whenever something is submitted or an event source notifies a lane. What remains
//! (a turn's budget was spent, a lane wants to be polled later or always) is done by one task of the
//! thread. It is made when there is something to do and ends when there is not, so that a table at rest does
//! not keep its thread from exiting. Away from a Spindle thread there is no task, and who owns the table
//! steps it.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Weak;
use std::task::Poll;

use crate::table::Table;
use crate::{Busy, LaneTable};

/// The table's tie to its thread.
#[derive(Default)]
pub(crate) struct Service {
    running: Cell<bool>,
}

impl Service {
    /// The table of the Spindle thread that runs the caller.
    pub(crate) fn table_of_thread() -> Option<LaneTable> {
        spindle_reactor::Thread::current()?;
        Some(spindle_reactor::extension::<LaneTable>().as_ref().clone())
    }

    /// Has the table stepped in a later turn of the thread.
    pub(crate) fn wake(&self, table: &Weak<Table>) {
        if !self.running.get() && spindle_reactor::Thread::current().is_some() {
            self.running.set(true);
            drop(spindle_reactor::spawn_local(serve(table.clone())));
        }
    }
}

/// Steps the table while there is something to do.
async fn serve(table: Weak<Table>) {
    poll_fn(|cx| {
        let Some(table) = table.upgrade() else { return Poll::Ready(()) };
        // What is asked for during the step, when it has looked already, has a task of its own.
        table.service().running.set(false);
        if table.step() == Busy::Yes && !table.service().running.replace(true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}
