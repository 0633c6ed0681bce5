//! `Thread::run`: makes and runs a future on another thread, and brings its result back.
//!
//! The call goes as one message; the future is boxed on the target thread, once, and freed there. The answer
//! comes back as one message.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use spindle_ring::Parcel;

use crate::diagnosis::wait::Wait;
use crate::error::RunError;
use crate::local::current;
use crate::message::foreign::ForeignCell;
use crate::message::thread::Thread;
use crate::shared::thread::ThreadShared;
use crate::task::calls::CallId;
use crate::task::replies::Answer;

/// The future of [`Thread::run`].
///
/// # Panics
/// When polled again after it has returned its result.
#[must_use = "nothing runs before it is awaited"]
pub struct Run<F, R> {
    thread: Thread,
    called_at: &'static Location<'static>,
    state: State<F, R>,
}

enum State<F, R> {
    /// Not sent yet.
    New(F),
    /// Sent from the Spindle thread with this id; the answer comes to this place.
    Local {
        caller: Arc<ThreadShared>,
        number: u64,
    },
    /// Sent from outside a Spindle thread.
    Foreign(Arc<ForeignCell<R>>),
    Done,
}

// The closure is moved out whole; nothing here is pinned.
impl<F, R> Unpin for Run<F, R> {}

impl<F, R> Run<F, R> {
    #[track_caller]
    pub(crate) fn new(thread: Thread, f: F) -> Run<F, R>
    where
        F: AsyncFnOnce() -> R,
    {
        Run { thread, called_at: Location::caller(), state: State::New(f) }
    }
}

impl<F, R> Run<F, R>
where
    F: AsyncFnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    /// Sends the call; returns what to wait for.
    fn send(&self, f: F, cx: &Context<'_>) -> Result<State<F, R>, RunError> {
        let (to, state) = match current::cloned() {
            Some(core) => {
                let number = core.replies.borrow_mut().insert(cx.waker().clone());
                let caller = core.shared.clone();
                (ReplyTo::Thread(caller.clone(), number), State::Local { caller, number })
            }
            None => {
                let cell = Arc::new(ForeignCell::new(self.thread.shared.runtime.number_call()));
                (ReplyTo::Cell(cell.clone()), State::Foreign(cell))
            }
        };
        // If it cannot be sent, dropping the message delivers the reason.
        send_call(&self.thread, f, to, self.called_at);
        Ok(state)
    }
}

/// Sends the message that makes and spawns the future. If the message is dropped, it answers that the thread
/// is gone.
pub(crate) fn send_call<F, R>(thread: &Thread, f: F, to: ReplyTo<R>, called_at: &'static Location<'static>)
where
    F: AsyncFnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let reply = Reply { to: Some(to) };
    let call = move || {
        let core = current::expect("a call");
        let call_id = reply.call_id();
        core.spawn(Box::pin(async move { reply.answer(f().await) }), called_at, call_id);
    };
    // Refused: the call was dropped, and its reply has delivered that.
    let _ = thread.shared.send(call);
}

impl<F, R> Future for Run<F, R>
where
    F: AsyncFnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = Result<R, RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.state, State::New(_)) {
            let State::New(f) = std::mem::replace(&mut self.state, State::Done) else {
                unreachable!("just seen")
            };
            self.state = self.send(f, cx)?;
        }
        let answer = match &self.state {
            State::New(_) | State::Done => panic!("a call was polled again after it has given its result"),
            State::Foreign(cell) => cell.poll(cx),
            State::Local { caller, number } => match current::cloned() {
                Some(core) if Arc::ptr_eq(&core.shared, caller) => {
                    core.replies.borrow_mut().poll(*number, cx).map(open_parcel)
                }
                _ => Poll::Ready(Err(RunError::Moved { thread: self.thread.name().to_owned() })),
            },
        };
        if answer.is_pending() {
            current::note(Wait::Call(self.thread.id()));
        }
        answer.map(|answer| {
            self.state = State::Done;
            answer.map_err(|error| named(error, &self.thread))
        })
    }
}

fn open_parcel<R: Send + 'static>(answer: Answer) -> Result<R, RunError> {
    answer.map(|parcel| parcel.take().unwrap_or_else(|_| unreachable!("the caller's place has one type")))
}

/// Adds the thread's name to the answer of a dropped message, which has no names.
pub(crate) fn named(error: RunError, thread: &Thread) -> RunError {
    match error {
        RunError::Cancelled if thread.is_gone() => RunError::Gone { thread: thread.name().to_owned() },
        error => error,
    }
}

impl<F, R> Drop for Run<F, R> {
    fn drop(&mut self) {
        let call_id = match &self.state {
            State::New(_) | State::Done => return,
            State::Foreign(cell) => foreign_call_id(cell),
            State::Local { caller, number } => {
                // An answer is dropped at the end of this function, while nothing is borrowed.
                let freed = current::cloned()
                    .filter(|core| Arc::ptr_eq(&core.shared, caller))
                    .map(|core| core.replies.borrow_mut().remove(*number));
                if !matches!(freed, None | Some(Some(None))) {
                    return;
                }
                CallId { thread: caller.id, number: *number }
            }
        };
        cancel(&self.thread, call_id);
    }
}

/// Cancels a call's future on its own thread.
pub(crate) fn cancel(thread: &Thread, call_id: CallId) {
    // A thread that is gone has dropped it.
    let _ = thread.send_msg(move || {
        current::cloned().into_iter().for_each(|core| core.tasks.cancel_call(call_id));
    });
}

/// The identity of a call from outside.
pub(crate) fn foreign_call_id<R>(cell: &ForeignCell<R>) -> CallId {
    CallId { thread: 0, number: cell.number }
}

/// Where an answer goes.
pub(crate) enum ReplyTo<R> {
    Thread(Arc<ThreadShared>, u64),
    Cell(Arc<ForeignCell<R>>),
}

/// The obligation to answer once. Dropped without an answer, it delivers the reason.
struct Reply<R: Send + 'static> {
    to: Option<ReplyTo<R>>,
}

impl<R: Send + 'static> Reply<R> {
    fn call_id(&self) -> Option<CallId> {
        self.to.as_ref().map(|to| match to {
            ReplyTo::Thread(caller, number) => CallId { thread: caller.id, number: *number },
            ReplyTo::Cell(cell) => foreign_call_id(cell),
        })
    }

    fn answer(mut self, value: R) {
        match self.to.take() {
            Some(ReplyTo::Thread(caller, number)) => {
                caller.answer(move || deliver(number, Ok(Parcel::new(value))));
            }
            Some(ReplyTo::Cell(cell)) => cell.deliver(Ok(value)),
            None => unreachable!("a reply is taken once"),
        }
    }
}

impl<R: Send + 'static> Drop for Reply<R> {
    fn drop(&mut self) {
        let Some(to) = self.to.take() else { return };
        let tell = |reason| match to {
            ReplyTo::Thread(caller, number) => {
                caller.answer(move || deliver(number, Err(reason)));
            }
            ReplyTo::Cell(cell) => cell.deliver(Err(reason)),
        };
        match current::cloned() {
            Some(core) => core.tasks.tell_why(tell),
            None => tell(RunError::Cancelled),
        }
    }
}

/// Runs on the caller's thread.
fn deliver(number: u64, answer: Answer) {
    let Some(core) = current::cloned() else { return };
    let (waker, unwanted) = core.replies.borrow_mut().deliver(number, answer);
    // Both run foreign destructors: nothing is borrowed here.
    drop(unwanted);
    waker.into_iter().for_each(std::task::Waker::wake);
}
