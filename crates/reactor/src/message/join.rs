//! Handles to wait for a task: on its own thread, or from anywhere.

use std::cell::RefCell;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll, Wake, Waker};

use crate::diagnosis::wait::Wait;
use crate::error::RunError;
use crate::local::current;
use crate::local::thread_core::ThreadCore;
use crate::message::foreign::ForeignCell;
use crate::message::run::{ReplyTo, cancel, foreign_origin, named, send_call};
use crate::message::thread::Thread;
use crate::task::waker::TaskKey;

/// A task started by [`Thread::spawn`]. May be sent and awaited anywhere, on any executor. Dropping it lets
/// the task run to its end, unless [`cancel_on_drop`](Self::cancel_on_drop) was called.
///
/// # Panics
/// When polled again after it has returned its result.
pub struct JoinHandle<R> {
    thread: Thread,
    cell: Arc<ForeignCell<R>>,
    cancel_on_drop: bool,
    given: bool,
}

impl<R: Send + 'static> JoinHandle<R> {
    #[track_caller]
    pub(crate) fn spawn<F>(thread: Thread, f: F) -> JoinHandle<R>
    where
        F: AsyncFnOnce() -> R + Send + 'static,
    {
        let cell = Arc::new(ForeignCell::new(thread.shared.runtime.number_call()));
        send_call(&thread, f, ReplyTo::Cell(cell.clone()), Location::caller());
        JoinHandle { thread, cell, cancel_on_drop: false, given: false }
    }

    /// Cancels the task there, if it still runs.
    pub fn abort(&self) {
        cancel(&self.thread, foreign_origin(&self.cell));
    }

    /// Makes dropping the handle cancel the task there.
    pub fn cancel_on_drop(mut self) -> JoinHandle<R> {
        self.cancel_on_drop = true;
        self
    }

    /// A function that cancels the task.
    pub(crate) fn aborter(&self) -> impl FnOnce() + Send + 'static {
        let (thread, origin) = (self.thread.clone(), foreign_origin(&self.cell));
        move || cancel(&thread, origin)
    }

    /// Blocks the OS thread until the task has ended. For plain OS threads.
    ///
    /// # Panics
    /// On a Spindle thread: it would block its reactor. Await the handle there.
    pub fn wait(self) -> Result<R, RunError> {
        assert!(Thread::current().is_none(), "JoinHandle::wait blocks a reactor; await the handle instead");
        block_on(self)
    }
}

impl<R> Future for JoinHandle<R> {
    type Output = Result<R, RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.given, "a JoinHandle was polled again after it has given its result");
        current::note(Wait::Call(self.thread.id()));
        let answer = self.cell.poll(cx);
        self.given = answer.is_ready();
        answer.map_err(|error| named(error, &self.thread))
    }
}

impl<R> Drop for JoinHandle<R> {
    fn drop(&mut self) {
        if self.cancel_on_drop {
            cancel(&self.thread, foreign_origin(&self.cell));
        }
    }
}

/// Runs a future on a plain OS thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Bell(SyncSender<()>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            // If it rings already, or the receiver is gone, no second ring is needed.
            let _ = self.0.try_send(());
        }
    }
    let (ring, heard) = sync_channel(1);
    let waker = Waker::from(Arc::new(Bell(ring)));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            // The waker holds the other end, so this waits until it rings.
            Poll::Pending => drop(heard.recv()),
        }
    }
}

/// A task started by [`spawn_local`](crate::spawn_local). Stays on its thread. Dropping it lets the task run
/// to its end, unless [`cancel_on_drop`](Self::cancel_on_drop) was called.
///
/// # Panics
/// When polled again after it has returned its result.
pub struct LocalJoinHandle<T> {
    core: Rc<ThreadCore>,
    key: TaskKey,
    cell: Rc<LocalCell<T>>,
    cancel_on_drop: bool,
    given: bool,
}

struct LocalCell<T>(RefCell<LocalState<T>>);

struct LocalState<T> {
    answer: Option<Result<T, RunError>>,
    waker: Option<Waker>,
}

impl<T> LocalCell<T> {
    fn deliver(&self, answer: Result<T, RunError>) {
        let mut state = self.0.borrow_mut();
        state.answer = Some(answer);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The task's end of the cell. Dropped without an answer, it delivers the reason.
struct Deliver<T: 'static>(Option<Rc<LocalCell<T>>>);

impl<T: 'static> Drop for Deliver<T> {
    fn drop(&mut self) {
        let Some(cell) = self.0.take() else { return };
        let tell = move |reason| cell.deliver(Err(reason));
        match current::cloned() {
            Some(core) => core.tasks.tell_why(tell),
            None => tell(RunError::Cancelled),
        }
    }
}

impl<T: 'static> LocalJoinHandle<T> {
    pub(crate) fn spawn(
        core: &Rc<ThreadCore>,
        future: impl Future<Output = T> + 'static,
        spawned_at: &'static Location<'static>,
    ) -> LocalJoinHandle<T> {
        let cell = Rc::new(LocalCell(RefCell::new(LocalState { answer: None, waker: None })));
        let mut deliver = Deliver(Some(cell.clone()));
        let task = async move {
            let value = future.await;
            if let Some(cell) = deliver.0.take() {
                cell.deliver(Ok(value));
            }
        };
        let key = core.spawn(Box::pin(task), spawned_at, None);
        LocalJoinHandle { core: core.clone(), key, cell, cancel_on_drop: false, given: false }
    }

    /// Drops the task, if it still runs: at once, or when its current poll returns.
    pub fn abort(&self) {
        self.core.tasks.cancel(self.key);
    }

    /// Makes dropping the handle drop the task.
    pub fn cancel_on_drop(mut self) -> LocalJoinHandle<T> {
        self.cancel_on_drop = true;
        self
    }

    /// True if the task has ended and its result is waiting.
    pub fn is_finished(&self) -> bool {
        self.cell.0.borrow().answer.is_some()
    }
}

impl<T> Future for LocalJoinHandle<T> {
    type Output = Result<T, RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.given, "a LocalJoinHandle was polled again after it has given its result");
        let mut state = self.cell.0.borrow_mut();
        let Some(answer) = state.answer.take() else {
            state.waker = Some(cx.waker().clone());
            self.core.tasks.spawned_at(self.key).into_iter().for_each(|at| current::note(Wait::Task(at)));
            return Poll::Pending;
        };
        drop(state);
        self.given = true;
        Poll::Ready(answer)
    }
}

impl<T> Drop for LocalJoinHandle<T> {
    fn drop(&mut self) {
        if self.cancel_on_drop {
            self.core.tasks.cancel(self.key);
        }
    }
}
