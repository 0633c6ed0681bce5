//! Long work in steps, with progress.
//!
//! The end of a load is written as futures that only wait for their next step, so that the caller decides
//! when that is. No clock is read: a step is a fixed number of units of work, each about the work for one
//! metadata page.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

/// Units of one step: about a millisecond.
pub(super) const STEP: u32 = 512;

/// Counts work, and ends a step when there was enough.
#[derive(Debug, Default)]
pub(super) struct Pace {
    in_step: Cell<u32>,
    done: Cell<u64>,
}

impl Pace {
    /// Counts `units` units of work; may end the step.
    pub(super) async fn spend(&self, units: u32) {
        self.done.set(self.done.get() + u64::from(units));
        self.in_step.set(self.in_step.get().saturating_add(units));
        if self.in_step.get() >= STEP {
            self.in_step.set(0);
            self.turn().await;
        }
    }

    async fn turn(&self) {
        let mut waited = false;
        poll_fn(|_| match std::mem::replace(&mut waited, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Units done so far.
    pub(super) fn done(&self) -> u64 {
        self.done.get()
    }
}
