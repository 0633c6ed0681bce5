//! Io devices: resources with a separate part for every thread that uses them.
//!
//! A device is a handle for any thread; it makes one `C` per thread, on first use there. The `C` lives and
//! dies on that thread (it need not be `Send`), is shared there by counted [`IoChannel`]s, and is dropped
//! with the last of them, immediately. Differences from SPDK's io devices: `docs/threading.md`.
//!
//! Not promised: that a channel which is dropped and taken again is the same one.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::caught::drop_caught;
use crate::error::RunError;
use crate::local::current;
use crate::local::thread_core::ThreadCore;
use crate::message::thread::Thread;
use crate::shared::Shared;
use crate::shared::thread::ThreadShared;
use crate::shared::wait_list::WaitList;
use crate::thread::context::waits_for;
use crate::thread::hold::Hold;

type CreateFailed = Box<dyn Error + Send + Sync>;

/// A device with a part for each thread. Cloneable, for any OS thread. It lives until its last handle and its
/// last channel are dropped.
pub struct IoDevice<C: 'static> {
    inner: Arc<Inner<C>>,
}

struct Inner<C> {
    name: Arc<str>,
    create: Box<dyn Fn() -> Result<C, CreateFailed> + Send + Sync>,
    runtime: Arc<Shared>,
    state: Mutex<State>,
    /// Tasks that wait for the last channel.
    unregistering: WaitList,
}

/// Locked briefly when a channel is made or dropped.
#[derive(Default)]
struct State {
    unregistered: bool,
    /// The threads that have a channel, by id.
    threads: BTreeMap<u64, Arc<ThreadShared>>,
    /// Number of visits of all channels under way, and of channels being made.
    uses: usize,
    /// The ids of threads on which a visitor is being polled now.
    visitors: Vec<u64>,
}

/// Why a thread has no channel to a device.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The caller is not on a Spindle thread.
    #[error(
        "device {device}: a channel belongs to a Spindle thread; open it inside Runtime::run or Thread::run"
    )]
    NotOnThread {
        /// Its name.
        device: String,
    },
    /// The device belongs to another runtime.
    #[error("device {device} is registered in another runtime; open the channel on a thread of that one")]
    OtherRuntime {
        /// Its name.
        device: String,
    },
    /// The device is being unregistered.
    #[error("device {device} is unregistered; register it again")]
    Unregistered {
        /// Its name.
        device: String,
    },
    /// The device could not make this thread's part.
    #[error("device {device}: no channel for this thread: {source}")]
    Create {
        /// Its name.
        device: String,
        /// The error of its `create`.
        source: CreateFailed,
    },
}

/// Why a visit of all channels stopped early.
#[derive(Debug, thiserror::Error)]
pub enum VisitError<E> {
    /// The visitor returned an error.
    #[error("{error}")]
    Visitor {
        /// On which thread, by id.
        thread: u64,
        /// The error.
        error: E,
    },
    /// The visitor panicked, or the runtime stopped.
    #[error("the visit ended on thread {thread}: {source}")]
    Thread {
        /// On which thread, by id.
        thread: u64,
        /// The cause.
        source: RunError,
    },
    /// The device is unregistered: no new visit may begin.
    #[error("device {device} is unregistered")]
    Unregistered {
        /// Its name.
        device: String,
    },
}

/// Why a device was not unregistered.
#[derive(Debug, thiserror::Error)]
pub enum UnregisterError {
    /// The caller runs inside a visit of the device's own channels, which would have to end first.
    #[error(
        "device {device}: unregister was called inside a visit of its channels on thread {thread}, and would wait for that visit; call it afterwards, or in a task that the visitor does not await"
    )]
    Visiting {
        /// Its name.
        device: String,
        /// The thread that is visited, by id.
        thread: u64,
    },
}

impl<C: 'static> IoDevice<C> {
    /// Registers a device with the runtime that runs the caller. `create` makes a thread's part, on that
    /// thread; it must not open a channel of the same device.
    ///
    /// # Panics
    /// Outside a Spindle thread; use [`Handle::register_io_device`](crate::Handle::register_io_device).
    pub fn register<E>(name: &str, create: impl Fn() -> Result<C, E> + Send + Sync + 'static) -> IoDevice<C>
    where
        E: Into<CreateFailed>,
    {
        IoDevice::of(current::expect("an io device").local.shared.clone(), name, create)
    }

    pub(crate) fn of<E>(
        runtime: Arc<Shared>,
        name: &str,
        create: impl Fn() -> Result<C, E> + Send + Sync + 'static,
    ) -> IoDevice<C>
    where
        E: Into<CreateFailed>,
    {
        let create = Box::new(move || create().map_err(Into::into));
        IoDevice {
            inner: Arc::new(Inner {
                name: name.into(),
                create,
                runtime,
                state: Mutex::default(),
                unregistering: WaitList::default(),
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The current thread's channel: made if the thread has none, otherwise one more handle on it.
    ///
    /// # Errors
    /// [`ChannelError`] names the device and the remedy.
    pub fn channel(&self) -> Result<IoChannel<C>, ChannelError> {
        let inner = &self.inner;
        let device = || inner.name.to_string();
        let core = current::cloned().ok_or_else(|| ChannelError::NotOnThread { device: device() })?;
        if !Arc::ptr_eq(&core.local.shared, &inner.runtime) {
            return Err(ChannelError::OtherRuntime { device: device() });
        }
        // An unregistration waits for the channel from here on, although it is not there yet.
        let _use = Use::begin(inner).ok_or_else(|| ChannelError::Unregistered { device: device() })?;
        if let Some(cell) = self.known() {
            return Ok(IoChannel { cell, hold: Hold::channel(inner.name.clone()) });
        }
        let value = (inner.create)().map_err(|source| ChannelError::Create { device: device(), source })?;
        let cell = Rc::new(ChannelCell {
            value: Some(value),
            device: inner.clone(),
            thread: core.shared.id,
            core: Rc::downgrade(&core),
        });
        inner.state().threads.insert(core.shared.id, core.shared.clone());
        core.channels.borrow_mut().insert(inner.key(), Box::new(Rc::downgrade(&cell)));
        Ok(IoChannel { cell, hold: Hold::channel(inner.name.clone()) })
    }

    /// The current thread's part, if it has one.
    fn known(&self) -> Option<Rc<ChannelCell<C>>> {
        current::with(|core| {
            let channels = core?.channels.borrow();
            channels.get(&self.inner.key())?.downcast_ref::<Weak<ChannelCell<C>>>()?.upgrade()
        })
    }

    /// How many threads have a channel now.
    pub fn channels(&self) -> usize {
        self.inner.state().threads.len()
    }

    /// Calls `visitor` with the part of every thread that has one: on that thread, one thread after the
    /// other, in the order of thread ids. A thread whose channel is gone by then is skipped; one that gets
    /// its first channel meanwhile is visited if its turn has not passed. The first error ends the visit.
    ///
    /// Dropping the future cancels the current call, and no further thread is visited.
    ///
    /// # Errors
    /// [`VisitError`] names the thread on which it ended, and why.
    pub async fn for_each_channel<E: Send + 'static>(
        &self,
        visitor: impl AsyncFn(&C) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<(), VisitError<E>> {
        let device = || self.inner.name.to_string();
        let _use = Use::begin(&self.inner).ok_or_else(|| VisitError::Unregistered { device: device() })?;
        let visitor = Arc::new(visitor);
        let mut last = 0;
        while let Some(shared) = self.inner.next_thread(last) {
            let thread = shared.id;
            last = thread;
            let (device, visitor) = (self.clone(), visitor.clone());
            let visited = Thread { shared }.run(async move || match device.known() {
                Some(cell) => device.inner.visited(thread, visitor(cell.value())).await,
                None => Ok(()),
            });
            match visited.await {
                Ok(Ok(())) | Err(RunError::Gone { .. }) => {}
                Ok(Err(error)) => return Err(VisitError::Visitor { thread, error }),
                Err(source) => return Err(VisitError::Thread { thread, source }),
            }
        }
        Ok(())
    }

    /// Takes the device out of use: no thread gets a channel from now on, and no visit begins. Completes when
    /// the visits under way have ended and the last channel is dropped. Open channels stay usable, so a
    /// caller that holds one must drop it first. A second call waits too.
    ///
    /// Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`UnregisterError`] inside a visit of this device's channels, for which it would wait: it stays in
    /// use.
    pub async fn unregister(&self) -> Result<(), UnregisterError> {
        let ready = || {
            let mut state = self.inner.state();
            if let Some(thread) = state.visitor_here() {
                return Some(Err(UnregisterError::Visiting { device: self.name().to_owned(), thread }));
            }
            state.unregistered = true;
            if state.uses == 0 && state.threads.is_empty() {
                return Some(Ok(()));
            }
            waits_for("the last channel of a device that is unregistered");
            None
        };
        self.inner.unregistering.until(ready).await
    }
}

impl State {
    /// The current thread, if a visitor polls the caller.
    fn visitor_here(&self) -> Option<u64> {
        let here = current::with(|core| core.map(|core| core.shared.id))?;
        self.visitors.contains(&here).then_some(here)
    }
}

impl<C> Inner<C> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Identifies the device in a thread's table. Its channels keep it alive, so no other device gets the
    /// same key.
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The first thread after `last` that has a channel.
    fn next_thread(&self, last: u64) -> Option<Arc<ThreadShared>> {
        self.state().threads.range(last + 1..).next().map(|(_, thread)| thread.clone())
    }

    /// Runs a visitor on a thread; the device knows while it is polled.
    async fn visited<R>(&self, thread: u64, visitor: impl Future<Output = R>) -> R {
        let mut visitor = pin!(visitor);
        poll_fn(|cx| {
            let _polled = Visitor::new(self, thread);
            visitor.as_mut().poll(cx)
        })
        .await
    }

    /// Changes the state, and wakes waiting tasks if nothing is left.
    fn leave(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        if state.uses > 0 || !state.threads.is_empty() {
            return;
        }
        drop(state);
        self.unregistering.wake_all();
    }
}

/// A visit, or the making of a channel, under way.
struct Use<'a, C> {
    device: &'a Inner<C>,
}

impl<'a, C> Use<'a, C> {
    /// None if the device is unregistered.
    fn begin(device: &'a Inner<C>) -> Option<Use<'a, C>> {
        let mut state = device.state();
        if state.unregistered {
            return None;
        }
        state.uses += 1;
        drop(state);
        Some(Use { device })
    }
}

impl<C> Drop for Use<'_, C> {
    fn drop(&mut self) {
        self.device.leave(|state| state.uses -= 1);
    }
}

/// A visitor that is being polled.
struct Visitor<'a, C> {
    device: &'a Inner<C>,
    thread: u64,
}

impl<'a, C> Visitor<'a, C> {
    fn new(device: &'a Inner<C>, thread: u64) -> Visitor<'a, C> {
        device.state().visitors.push(thread);
        Visitor { device, thread }
    }
}

impl<C> Drop for Visitor<'_, C> {
    fn drop(&mut self) {
        let mut state = self.device.state();
        if let Some(at) = state.visitors.iter().position(|thread| *thread == self.thread) {
            state.visitors.swap_remove(at);
        }
    }
}

impl<C> Clone for IoDevice<C> {
    fn clone(&self) -> IoDevice<C> {
        IoDevice { inner: self.inner.clone() }
    }
}

impl<C> fmt::Debug for IoDevice<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoDevice({})", self.inner.name)
    }
}

/// One thread's part of a device, shared by its channels.
struct ChannelCell<C: 'static> {
    /// `Some` until dropped.
    value: Option<C>,
    device: Arc<Inner<C>>,
    /// The thread's id, and its table while it lives.
    thread: u64,
    core: Weak<ThreadCore>,
}

impl<C> ChannelCell<C> {
    fn value(&self) -> &C {
        self.value.as_ref().expect("there until dropped")
    }
}

impl<C> Drop for ChannelCell<C> {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            core.channels.borrow_mut().remove(&self.device.key());
        }
        // Dropped before the device is told: an unregistration then finds nothing left of it. A panic of its
        // destructor must not prevent that.
        drop_caught(self.value.take());
        self.device.leave(|state| drop(state.threads.remove(&self.thread)));
    }
}

/// A counted handle on the current thread's part of a device. It keeps the thread from exiting, and stays on
/// it:
/// ```compile_fail,E0277
/// fn goes_elsewhere<T: Send>() {}
/// goes_elsewhere::<spindle_reactor::IoChannel<u32>>();
/// ```
pub struct IoChannel<C: 'static> {
    cell: Rc<ChannelCell<C>>,
    hold: Hold,
}

impl<C> IoChannel<C> {
    /// The device.
    pub fn device(&self) -> IoDevice<C> {
        IoDevice { inner: self.cell.device.clone() }
    }
}

impl<C> Clone for IoChannel<C> {
    fn clone(&self) -> IoChannel<C> {
        IoChannel { cell: self.cell.clone(), hold: self.hold.clone() }
    }
}

impl<C> Deref for IoChannel<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.cell.value()
    }
}

impl<C> fmt::Debug for IoChannel<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoChannel({})", self.cell.device.name)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::{EngineKind, Runtime};

    struct Nothing;
    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn an_unregistration_waits_for_a_channel_that_is_being_made() {
        let runtime = Runtime::builder().engine(EngineKind::Epoll).cores(0).reactors(2).build().unwrap();
        let ended = runtime.run(async || {
            let (making, made) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
            let (began, go_on) = (making.0, Mutex::new(made.1));
            let device = IoDevice::register("device", move || {
                began.send(()).unwrap();
                go_on.lock().unwrap().recv().unwrap();
                Ok::<u32, std::io::Error>(1)
            });
            // On the other reactor: making the channel stops that one.
            let other = loop {
                let thread = Thread::create("other", 0).unwrap();
                if thread.reactor() != Thread::current().unwrap().reactor() {
                    break thread;
                }
            };
            let there = device.clone();
            let opens = other.spawn(async move || {
                let channel = there.channel().unwrap();
                crate::sleep(std::time::Duration::from_millis(1)).await;
                drop(channel);
            });
            making.1.recv().unwrap();
            let mut unregistered = Box::pin(device.unregister());
            let waker = Waker::from(Arc::new(Nothing));
            let polled = Pin::new(&mut unregistered).poll(&mut Context::from_waker(&waker));
            made.0.send(()).unwrap();
            assert!(polled.is_pending(), "the channel may be there any moment");
            unregistered.await.unwrap();
            assert_eq!(device.channels(), 0);
            opens.await.unwrap();
        });
        ended.unwrap();
    }

    #[test]
    fn a_wait_for_the_last_channel_keeps_one_waker_whatever_polls_it_and_none_when_it_is_dropped() {
        let runtime = Runtime::builder().engine(EngineKind::Sim(1)).build().unwrap();
        let ended = runtime.run(async || {
            let device = IoDevice::register("device", || Ok::<u32, std::io::Error>(1));
            let channel = device.channel().unwrap();
            let mut waits: Vec<_> = (0..3).map(|_| Box::pin(device.unregister())).collect();
            for _ in 0..10 {
                for wait in &mut waits {
                    let waker = Waker::from(Arc::new(Nothing));
                    let polled = Pin::new(wait).poll(&mut Context::from_waker(&waker));
                    assert!(polled.is_pending());
                }
                assert_eq!(device.inner.unregistering.len(), 3);
            }
            waits.truncate(1);
            assert_eq!(device.inner.unregistering.len(), 1);
            drop(channel);
            waits.remove(0).await.unwrap();
            assert!(device.inner.unregistering.is_empty());
        });
        ended.unwrap();
    }
}
