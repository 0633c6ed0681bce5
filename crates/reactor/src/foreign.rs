//! Where an answer arrives for a caller who is not on a Spindle thread, or who wants a handle to send.
//!
//! Shared by the task there and whoever waits: a plain OS thread, a tokio task, any executor.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::RunError;

/// One answer, delivered once.
pub(crate) struct ForeignCell<R> {
    /// By which the call is cancelled: no other call to a thread of the same runtime ever has it.
    pub(crate) number: u64,
    state: Mutex<State<R>>,
}

struct State<R> {
    answer: Option<Result<R, RunError>>,
    waker: Option<Waker>,
}

impl<R> ForeignCell<R> {
    pub(crate) fn new(number: u64) -> ForeignCell<R> {
        ForeignCell { number, state: Mutex::new(State { answer: None, waker: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn deliver(&self, answer: Result<R, RunError>) {
        let waker = {
            let mut state = self.state();
            state.answer = Some(answer);
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<R, RunError>> {
        let mut state = self.state();
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
