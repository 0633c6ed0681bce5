//! What ties a lane table to the Spindle thread it lives on: who steps it when nobody else does.
//!
//! A table moves requests whenever something is submitted or an event source notifies a lane. What remains
//! (a turn's budget was spent, a lane wants to be polled later or always) is done by one task of the
//! thread, made when first needed and ended when the last lane closes. Away from a Spindle thread there is
//! no task, and who owns the table steps it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Weak;
use std::task::{Poll, Waker};

use crate::table::Table;
use crate::{Busy, LaneTable};

/// The table's tie to its thread.
#[derive(Default)]
pub(crate) struct Service {
    running: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Service {
    /// The table of the Spindle thread that runs the caller.
    pub(crate) fn table_of_thread() -> Option<LaneTable> {
        spindle_reactor::Thread::current()?;
        Some(spindle_reactor::extension::<LaneTable>().as_ref().clone())
    }

    /// Has the table stepped in a later turn of the thread.
    pub(crate) fn wake(&self, table: &Weak<Table>) {
        if self.running.get() {
            self.wake_task();
        } else if spindle_reactor::Thread::current().is_some() {
            self.running.set(true);
            drop(spindle_reactor::spawn_local(serve(table.clone())));
        }
    }

    /// Has the thread's task look at the table, if there is such a task.
    pub(crate) fn wake_task(&self) {
        // Taken out first: a waker may come back here.
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Steps the table while there is something to do, then sleeps until woken.
async fn serve(table: Weak<Table>) {
    poll_fn(|cx| {
        let Some(table) = table.upgrade() else { return Poll::Ready(()) };
        let busy = table.step();
        let service = table.service();
        if table.is_unused() {
            service.running.set(false);
            return Poll::Ready(());
        }
        if busy == Busy::Yes {
            cx.waker().wake_by_ref();
        } else {
            *service.waker.borrow_mut() = Some(cx.waker().clone());
        }
        Poll::Pending
    })
    .await;
}
