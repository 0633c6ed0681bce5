//! The outstanding work of one connection: calls under way, and unsent answers.
//!
//! Shared by the connection's reader and writer and the tasks of its calls, all on one thread. No further request
//! is read from a client that does not read its answers; if its answers exceed the limit, it is disconnected.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::budget::Share;
use crate::error::RpcError;
use crate::response::answer;
use crate::value::Value;

/// Number of calls under way at which reading stops.
const MOST_CALLS: usize = 1024;

/// Bytes of unsent answers at which reading stops.
const ENOUGH_UNSENT: usize = 1 << 20;

/// Bytes of unsent answers at which the client is disconnected.
const MOST_UNSENT: usize = 64 << 20;

/// The outstanding work of a connection.
pub(crate) struct Answers {
    state: RefCell<State>,
    share: Share,
}

#[derive(Default)]
struct State {
    /// Answers in the order of completion, each with its line feed.
    unsent: Vec<u8>,
    /// Bytes that the writer is sending.
    sending: usize,
    calls: usize,
    /// True once no more requests come.
    ended: bool,
    /// True once the server closes: no more requests are read, and calls under way are answered.
    closing: bool,
    /// True once the server has closed: unsent answers still go out, calls under way are not waited for.
    closed: bool,
    /// True once the client is gone or disconnected.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The answer that is owed to one call. Dropped without an answer, as when the handler panics, it answers an
/// error.
pub(crate) struct OwedAnswer {
    answers: Rc<Answers>,
    batch: Option<Rc<Batch>>,
    id: Option<Value>,
    method: String,
    open: bool,
}

/// The answers of one batch, sent together when the last one is there.
#[derive(Default)]
pub(crate) struct Batch(RefCell<(Vec<String>, usize)>);

impl Answers {
    pub(crate) fn new(share: Share) -> Rc<Answers> {
        Rc::new(Answers { state: RefCell::default(), share })
    }

    /// Begins a call; its answer goes into its batch, if it has one.
    pub(crate) fn begin(
        self: &Rc<Self>,
        batch: Option<Rc<Batch>>,
        method: &str,
        id: Option<Value>,
    ) -> OwedAnswer {
        self.state.borrow_mut().calls += 1;
        if let Some(batch) = &batch {
            batch.0.borrow_mut().1 += 1;
        }
        OwedAnswer { answers: self.clone(), batch, id, method: method.to_owned(), open: true }
    }

    /// Queues an error that belongs to no call.
    pub(crate) fn refuse(&self, id: Option<&Value>, error: RpcError) {
        self.push(answer(id, Err(error)).into_iter());
    }

    fn push(&self, texts: impl Iterator<Item = String>) {
        let mut state = self.state.borrow_mut();
        if state.broken {
            return;
        }
        for text in texts {
            state.unsent.extend_from_slice(text.as_bytes());
            state.unsent.push(b'\n');
        }
        let unsent = state.unsent.len() + state.sending;
        if !self.share.set(unsent) || unsent > MOST_UNSENT {
            state.broken = true;
            state.unsent = Vec::new();
        }
        state.wake_both();
    }

    fn finish_call(&self) {
        let mut state = self.state.borrow_mut();
        state.calls -= 1;
        state.wake_both();
    }

    /// Waits until another request may be read; false if no more may be read at all.
    pub(crate) async fn room(&self) -> bool {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.broken || state.closing {
                return Poll::Ready(false);
            }
            if state.calls < MOST_CALLS && state.unsent.len() + state.sending < ENOUGH_UNSENT {
                return Poll::Ready(true);
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until no call is under way.
    pub(crate) async fn idle(&self) {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.calls == 0 || state.broken || state.closed {
                return Poll::Ready(());
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits for something to send; none once everything was answered and sent, or the client is gone.
    pub(crate) async fn next(&self) -> Option<Vec<u8>> {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            state.sending = 0;
            if state.broken {
                return Poll::Ready(None);
            }
            if !state.unsent.is_empty() {
                state.sending = state.unsent.len();
                return Poll::Ready(Some(std::mem::take(&mut state.unsent)));
            }
            self.share.set(0);
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
            if state.closed || (state.ended || state.closing) && state.calls == 0 {
                return Poll::Ready(None);
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Notes that no more requests come.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.ended = true;
        state.wake_both();
    }

    /// Notes that the server closes.
    pub(crate) fn begin_close(&self) {
        let mut state = self.state.borrow_mut();
        state.closing = true;
        state.wake_both();
    }

    /// Notes that the server has closed.
    pub(crate) fn close(&self) {
        let mut state = self.state.borrow_mut();
        (state.closing, state.closed) = (true, true);
        state.wake_both();
    }

    /// Notes that the client is gone.
    pub(crate) fn break_off(&self) {
        let mut state = self.state.borrow_mut();
        state.broken = true;
        state.unsent = Vec::new();
        state.wake_both();
    }

    /// True if requests of the client are no longer of use.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.borrow();
        state.broken || state.closing
    }
}

impl State {
    fn wake_both(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl OwedAnswer {
    /// Sends the answer.
    pub(crate) fn answer(mut self, outcome: Result<String, RpcError>) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Result<String, RpcError>) {
        self.open = false;
        let text = answer(self.id.as_ref(), outcome);
        match &self.batch {
            None => self.answers.push(text.into_iter()),
            Some(batch) => {
                if let Some(texts) = batch.add(text) {
                    let whole = (!texts.is_empty()).then(|| format!("[{}]", texts.join(",")));
                    self.answers.push(whole.into_iter());
                }
            }
        }
        self.answers.finish_call();
    }
}

impl Batch {
    /// Adds the answer of one call; returns all answers if it was the last.
    fn add(&self, text: Option<String>) -> Option<Vec<String>> {
        let mut batch = self.0.borrow_mut();
        batch.0.extend(text);
        batch.1 -= 1;
        (batch.1 == 0).then(|| std::mem::take(&mut batch.0))
    }
}

impl Drop for OwedAnswer {
    fn drop(&mut self) {
        if self.open {
            let message = format!("Internal error: {} ended without a result; the log says why", self.method);
            self.settle(Err(RpcError::new(RpcError::INTERNAL, message)));
        }
    }
}
