//! Steps a lane table from its Spindle thread.
//!
//! A table moves requests whenever a request is submitted or an event source notifies a lane. One task of the
//! thread does the rest (a turn's budget was spent, a lane must be polled later or always). The task exists
//! only while there is such work, so that an idle table does not keep its thread from exiting. Without a
//! Spindle thread there is no task, and the table's owner steps it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Weak;
use std::task::{Poll, Waker};

use spindle_reactor::{Sleep, Time};

use crate::path::table::Table;
use crate::{Busy, LaneTable};

/// The table's tie to its thread.
#[derive(Default)]
pub(crate) struct Service {
    running: Cell<bool>,
    /// When the task for limits will step the table; `None` if there is no such task.
    alarm: Cell<Option<Time>>,
    /// That task's waker.
    waker: RefCell<Option<Waker>>,
    /// Set while that task steps the table, and left set by a lane that panics then.
    steps: Cell<bool>,
}

/// Held by the tasks that step a table. A lane that panics takes its task along: the others get their turns from
/// another one.
struct Stepper(Weak<Table>);

impl Drop for Stepper {
    fn drop(&mut self) {
        let Some(table) = self.0.upgrade() else { return };
        let service = table.service();
        let with_alarm = service.steps.replace(false);
        if table.looks_again_at_alarms() || with_alarm {
            service.alarm.set(None);
            drop(service.waker.take());
            service.wake(&self.0);
        }
    }
}

impl Service {
    /// The table of the Spindle thread that runs the caller.
    pub(crate) fn table_of_thread() -> Option<LaneTable> {
        spindle_reactor::Thread::current()?;
        Some(spindle_reactor::extension::<LaneTable>().as_ref().clone())
    }

    /// Steps the table when requests that wait for limits may go.
    pub(crate) fn wake_at(&self, due: Time, table: &Weak<Table>) {
        let before = self.alarm.get();
        if before == Some(due) || spindle_reactor::Thread::current().is_none() {
            return;
        }
        self.alarm.set(Some(due));
        match before {
            None => drop(spindle_reactor::spawn_local(wait_for_limits(table.clone()))),
            Some(_) => {
                // Taken out first: the waker may call this function again.
                let waker = self.waker.borrow_mut().take();
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Steps the table in a later turn of the thread.
    pub(crate) fn wake(&self, table: &Weak<Table>) {
        if !self.running.get() && spindle_reactor::Thread::current().is_some() {
            self.running.set(true);
            drop(spindle_reactor::spawn_local(serve(table.clone())));
        }
    }
}

/// Steps the table while it has work.
async fn serve(table: Weak<Table>) {
    let _stepper = Stepper(table.clone());
    poll_fn(|cx| {
        let Some(table) = table.upgrade() else { return Poll::Ready(()) };
        // Work that comes during the step gets another task.
        table.service().running.set(false);
        if table.step() == Busy::Yes && !table.service().running.replace(true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// Steps the table when requests that wait for limits may go, until none waits.
async fn wait_for_limits(table: Weak<Table>) {
    let _stepper = Stepper(table.clone());
    let mut set: Option<(Time, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        let Some(table) = table.upgrade() else { return Poll::Ready(()) };
        let service = table.service();
        if set.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready()) {
            set = None;
            service.steps.set(true);
            table.go_on();
            service.steps.set(false);
        }
        service.alarm.set(table.deadline());
        let Some(due) = table.deadline() else { return Poll::Ready(()) };
        *service.waker.borrow_mut() = Some(cx.waker().clone());
        if set.as_ref().is_none_or(|(until, _)| *until != due) {
            let span = due.since(spindle_reactor::clock().unwrap_or(due));
            set = Some((due, Box::pin(spindle_reactor::sleep(span))));
            // Polled for the first time it begins.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}
