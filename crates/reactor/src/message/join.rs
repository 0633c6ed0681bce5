//! The handle to wait for a task: on its own thread, on another, or outside the runtime.
//!
//! Owned by the caller. The task and its handle share a cell in which the result arrives; the task itself lives on
//! its thread. Not promised: that a task which is cancelled from another thread stops before its next await.

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
use crate::message::run::{ReplyTo, cancel, foreign_call_id, named, send_call};
use crate::message::thread::Thread;
use crate::task::waker::TaskKey;

/// A task started by [`Thread::spawn`] or [`spawn_local`](crate::spawn_local). If its result may be sent, so may the
/// handle: it can be awaited anywhere, on any executor. Dropping it lets the task run to its end, unless
/// [`cancel_on_drop`](Self::cancel_on_drop) was called.
///
/// # Panics
/// When polled again after it has returned its result.
pub struct JoinHandle<R> {
    thread: Thread,
    cell: Arc<ForeignCell<R>>,
    task: Task,
    cancel_on_drop: bool,
    given: bool,
}

/// A [`JoinHandle`] from [`spawn_local`](crate::spawn_local): another name for the same type.
pub type LocalJoinHandle<R> = JoinHandle<R>;

/// How the task is found on its thread.
enum Task {
    /// By the number of the call that started it.
    Called,
    /// By its place.
    Local(TaskKey),
}

impl<R: Send + 'static> JoinHandle<R> {
    #[track_caller]
    pub(crate) fn spawn<F>(thread: Thread, f: F) -> JoinHandle<R>
    where
        F: AsyncFnOnce() -> R + Send + 'static,
    {
        let cell = Arc::new(ForeignCell::new(thread.shared.runtime.number_call()));
        send_call(&thread, f, ReplyTo::Cell(cell.clone()), Location::caller());
        JoinHandle { thread, cell, task: Task::Called, cancel_on_drop: false, given: false }
    }

    /// A function that cancels the task.
    pub(crate) fn aborter(&self) -> impl FnOnce() + Send + 'static {
        let (thread, call_id) = (self.thread.clone(), foreign_call_id(&self.cell));
        move || cancel(&thread, call_id)
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

impl<R: 'static> JoinHandle<R> {
    pub(crate) fn spawn_local(
        core: &Rc<ThreadCore>,
        future: impl Future<Output = R> + 'static,
        spawned_at: &'static Location<'static>,
    ) -> JoinHandle<R> {
        // The number is not used: the task has a key.
        let cell = Arc::new(ForeignCell::new(0));
        let mut deliver = Deliver(Some(cell.clone()));
        let task = async move {
            let value = future.await;
            if let Some(cell) = deliver.0.take() {
                cell.deliver(Ok(value));
            }
        };
        let key = core.spawn(Box::pin(task), spawned_at, None);
        let thread = Thread { shared: core.shared.clone() };
        JoinHandle { thread, cell, task: Task::Local(key), cancel_on_drop: false, given: false }
    }
}

impl<R> JoinHandle<R> {
    /// Drops the task, if it still runs: on its own thread at once, or when its current poll returns; from
    /// elsewhere by a message.
    pub fn abort(&self) {
        match self.task {
            Task::Called => cancel(&self.thread, foreign_call_id(&self.cell)),
            Task::Local(key) => match self.core() {
                Some(core) => core.tasks.cancel(key),
                // A thread that is gone has dropped it.
                None => drop(self.thread.send_msg(move || {
                    current::cloned().into_iter().for_each(|core| core.tasks.cancel(key));
                })),
            },
        }
    }

    /// Makes dropping the handle [abort](Self::abort) the task.
    pub fn cancel_on_drop(mut self) -> JoinHandle<R> {
        self.cancel_on_drop = true;
        self
    }

    /// True if the task has ended and its result is waiting.
    pub fn is_finished(&self) -> bool {
        self.cell.is_answered()
    }

    /// The running half of the task's thread, if that is the caller's.
    fn core(&self) -> Option<Rc<ThreadCore>> {
        current::cloned().filter(|core| Arc::ptr_eq(&core.shared, &self.thread.shared))
    }

    /// What a dump shows as the wait of the task that awaits this handle.
    fn wait_noted(&self) -> Wait {
        let spawned_at = match self.task {
            Task::Called => None,
            Task::Local(key) => self.core().and_then(|core| core.tasks.spawned_at(key)),
        };
        spawned_at.map_or(Wait::Call(self.thread.id()), Wait::Task)
    }
}

impl<R> Future for JoinHandle<R> {
    type Output = Result<R, RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.given, "a JoinHandle was polled again after it has given its result");
        let answer = self.cell.poll(cx);
        self.given = answer.is_ready();
        if answer.is_pending() {
            current::note(self.wait_noted());
        }
        answer.map_err(|error| named(error, &self.thread))
    }
}

impl<R> Drop for JoinHandle<R> {
    fn drop(&mut self) {
        if self.cancel_on_drop {
            self.abort();
        }
    }
}

/// The local task's end of the cell. Dropped without an answer, it delivers the reason.
struct Deliver<R: 'static>(Option<Arc<ForeignCell<R>>>);

impl<R: 'static> Drop for Deliver<R> {
    fn drop(&mut self) {
        let Some(cell) = self.0.take() else { return };
        let tell = move |reason| cell.deliver(Err(reason));
        match current::cloned() {
            Some(core) => core.tasks.tell_why(tell),
            None => tell(RunError::Cancelled),
        }
    }
}

/// Runs a future on a plain OS thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Bell(SyncSender<()>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            // If a wake-up is pending, or the receiver is gone, no second one is needed.
            let _ = self.0.try_send(());
        }
    }
    let (ring, heard) = sync_channel(1);
    let waker = Waker::from(Arc::new(Bell(ring)));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            // The waker holds the other end, so this waits until it is called.
            Poll::Pending => drop(heard.recv()),
        }
    }
}
