//! A handle on a lightweight thread: to send to, call and await; never to poll.
//!
//! Cloneable, for any OS thread. The thread itself lives and dies on its reactor, and continues when the last
//! handle is dropped.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use spindle_engine::{BadCpuSet, CpuSet};

use crate::diagnosis::wait::Wait;
use crate::error::{CreateError, RunError, ThreadGone};
use crate::local::current;
use crate::message::join::JoinHandle;
use crate::message::run::Run;
use crate::shared::thread::ThreadShared;

/// The cores that a new thread asks for.
pub(crate) fn cores_of(
    thread: &str,
    cores: impl TryInto<CpuSet, Error: Into<BadCpuSet>>,
) -> Result<CpuSet, CreateError> {
    let bad = |source| CreateError::Cores { thread: thread.to_owned(), source };
    cores.try_into().map_err(|error| bad(error.into()))
}

/// A handle on a lightweight thread.
#[derive(Clone)]
pub struct Thread {
    pub(crate) shared: Arc<ThreadShared>,
}

impl Thread {
    /// Creates a thread named `name` on a reactor whose core is in `cores`: a hex mask or a list as SPDK writes
    /// them ("0x2", "[1,3-4]"), or values (`1`, `[1, 3]`, `1..4`, a [`CpuSet`]). Round robin where several fit.
    /// Must be called on a Spindle thread; from elsewhere use
    /// [`Handle::create_thread`](crate::Handle::create_thread).
    ///
    /// # Errors
    /// [`CreateError`] names the thread, the cores it asked for and those available.
    pub fn create(
        name: &str,
        cores: impl TryInto<CpuSet, Error: Into<BadCpuSet>>,
    ) -> Result<Thread, CreateError> {
        Thread::create_on(name, cores_of(name, cores)?)
    }

    /// As [`create`](Self::create), with a parsed set of cores.
    pub fn create_on(name: &str, cores: CpuSet) -> Result<Thread, CreateError> {
        let runtime = current::with(|core| core.map(|core| core.local.shared.clone()));
        let runtime = runtime.ok_or_else(|| CreateError::NotOnThread { thread: name.to_owned() })?;
        Ok(Thread { shared: runtime.create(name.to_owned(), cores)? })
    }

    /// The Spindle thread that runs the caller; none on a plain OS thread.
    pub fn current() -> Option<Thread> {
        current::with(|core| core.map(|core| Thread { shared: core.shared.clone() }))
    }

    /// Its number: from 1, in the order of creation, never reused in a runtime.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The cores it may run on.
    pub fn cores(&self) -> CpuSet {
        self.shared.cpuset
    }

    /// The number of the reactor it lives on, from 0.
    pub fn reactor(&self) -> usize {
        self.shared.reactor
    }

    /// The core of the reactor it lives on.
    pub fn core(&self) -> usize {
        self.shared.runtime.cores[self.shared.reactor]
    }

    /// Calls `f` on the thread. Messages of one sender are called in the order they were sent. Captures of up
    /// to 48 bytes allocate nothing.
    ///
    /// # Errors
    /// The thread has exited. A message that was sent before and not called is dropped.
    #[inline(always)]
    pub fn send_msg(&self, f: impl FnOnce() + Send + 'static) -> Result<(), ThreadGone> {
        self.shared.send(f)
    }

    /// Calls an async closure *there*, runs its future *there*, and brings the result *here*. Takes the closure, not a
    /// future, as in `worker.run(async move || answer(question).await)`: what it captures goes to the thread, and its
    /// future, which stays there, need not be `Send`. Dropping the call cancels the future there. A panic there becomes
    /// an error; the thread continues.
    ///
    /// Nothing happens before the first poll. Await it on the thread that first polled it.
    #[track_caller]
    pub fn run<F, R>(&self, f: F) -> Run<F, R>
    where
        F: AsyncFnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Run::new(self.clone(), f)
    }

    /// As [`run`](Self::run), for a closure whose future can fail: one error type for its own failures and for those of
    /// the call, instead of a result in a result.
    ///
    /// # Errors
    /// Those of the future, and [`RunError`] as one of them.
    #[track_caller]
    pub fn try_run<F, T, E>(&self, f: F) -> impl Future<Output = Result<T, E>> + use<F, T, E>
    where
        F: AsyncFnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<RunError> + Send + 'static,
    {
        let run = self.run(f);
        async move { run.await? }
    }

    /// Starts a future there at once. Dropping the handle lets it run to its end.
    #[track_caller]
    pub fn spawn<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: AsyncFnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        JoinHandle::spawn(self.clone(), f)
    }

    /// Asks the thread to exit. It runs until its messages, tasks and pollers have ended and its channels are
    /// dropped, and then is gone; a [dump](crate::Handle::dump) shows what it waits for. A second call has no
    /// effect.
    pub fn exit(&self) {
        // A thread that has exited need not be asked.
        let _ = self.send_msg(|| current::with(|core| core.into_iter().for_each(|core| core.start_exit())));
    }

    /// Waits until the thread has exited.
    ///
    /// # Panics
    /// On the thread itself: its exit waits for its tasks, and this is one of them.
    pub async fn joined(&self) {
        let thread = &*self.shared;
        let is_its_own =
            || current::with(|core| core.is_some_and(|core| std::ptr::eq(&*core.shared, thread)));
        let ready = || {
            if thread.is_gone() {
                return Some(());
            }
            assert!(
                !is_its_own(),
                "thread {} ({}) awaits its own end, which waits for this task: await it on another thread, or return",
                thread.id,
                thread.name
            );
            current::note(Wait::Exit(thread.id));
            None
        };
        thread.joining.until(ready).await;
    }

    /// True if it has exited.
    pub fn is_gone(&self) -> bool {
        self.shared.is_gone()
    }
}

impl PartialEq for Thread {
    fn eq(&self, other: &Thread) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Thread {}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thread({} {:?} on core {})", self.id(), self.name(), self.core())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{EngineKind, Runtime, Thread, timeout};

    #[test]
    fn who_gives_up_waiting_for_an_end_leaves_no_place_behind() {
        let runtime = Runtime::builder().engine(EngineKind::Sim(1)).build().unwrap();
        let ended = runtime.run(async || {
            let thread = Thread::create("thread", "[0-1023]").unwrap();
            for _ in 0..10 {
                assert!(timeout(Duration::ZERO, thread.joined()).await.is_err());
            }
            assert!(thread.shared.joining.is_empty());
            thread.exit();
            thread.joined().await;
        });
        ended.unwrap();
    }
}
