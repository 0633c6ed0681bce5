//! SIGHUPs that a program takes itself, for example to reopen its log. Otherwise they ask for a stop.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// How many came, and the waker of the task that waits.
#[derive(Default)]
pub(crate) struct Hangup(Mutex<Option<Taken>>);

#[derive(Default)]
struct Taken {
    arrived: u64,
    waker: Option<Waker>,
}

impl Hangup {
    /// From now on they are counted; `false`: not any more.
    pub(crate) fn take(&self, yes: bool) {
        *self.lock() = yes.then(Taken::default);
    }

    /// One has arrived; false if the program does not take them.
    pub(crate) fn arrived(&self) -> bool {
        let waker = match &mut *self.lock() {
            None => return false,
            Some(taken) => {
                taken.arrived += 1;
                taken.waker.take()
            }
        };
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// Ready when one has arrived since the last time.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.lock() {
            Some(taken) if taken.arrived > 0 => {
                taken.arrived = 0;
                Poll::Ready(())
            }
            Some(taken) => {
                taken.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
