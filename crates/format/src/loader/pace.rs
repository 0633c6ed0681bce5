//! Long work in steps: what is done in one piece, and how much is done.
//!
//! The end of a load is written as futures that wait for nothing but their turn, so that whoever drives them
//! decides when the next step is. No clock is read: a step is so many units of work, each about as much as one
//! metadata page makes.

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
    /// So many units of work were done; the step may be over.
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
