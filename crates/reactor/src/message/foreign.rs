//! Where an answer arrives for a caller outside a Spindle thread, or for a handle that may be sent.
//!
//! Shared by the task that answers and the waiter: a plain OS thread, a tokio task, any executor.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::RunError;

/// One answer, delivered once.
pub(crate) struct ForeignCell<R> {
    /// Identifies the call for cancelling it; unique among all calls to threads of one runtime.
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

    pub(crate) fn is_answered(&self) -> bool {
        self.state().answer.is_some()
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
