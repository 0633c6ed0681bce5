//! The futures of one thread.
//!
//! Owned by the thread's core, on its reactor. A future is made, polled and dropped there. Its waker may go
//! anywhere: it carries the thread, the place and a generation, so that a late wake finds another task, or
//! none, and has no effect.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use spindle_engine::Time;

use crate::caught::{call_caught, drop_caught, panic_message};
use crate::diagnosis::activity::CallKind;
use crate::diagnosis::wait::Wait;
use crate::error::{Panicked, RunError};
use crate::shared::thread::ThreadShared;
use crate::task::calls::{CallId, Calls};
use crate::task::host::Host;
use crate::task::waker::{TaskKey, TaskWaker};

/// A task without a result: the spawner has wrapped the future in one that delivers the result.
pub(crate) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    generation: u32,
    /// `None` while the task is polled.
    future: Option<LocalFuture>,
    waker: Arc<TaskWaker>,
    spawned_at: &'static Location<'static>,
    spawned: Time,
    /// When it was last polled, and what it has waited for since.
    polled: Time,
    wait: Wait,
    call_id: Option<CallId>,
    /// Set if it must be dropped once its poll returns.
    cancelled: bool,
}

/// Delivers the reason why there is no answer.
type Tell = Box<dyn FnOnce(RunError)>;

/// A task's description, for a dump.
pub(crate) struct TaskInfo {
    pub(crate) spawned_at: &'static Location<'static>,
    pub(crate) spawned: Time,
    pub(crate) ready: bool,
    pub(crate) polled: Time,
    pub(crate) wait: Wait,
}

/// The tasks of one thread.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: RefCell<Slab<Slot>>,
    /// The tasks that answer calls.
    calls: RefCell<Calls>,
    ready: RefCell<VecDeque<TaskKey>>,
    generation: Cell<u32>,
    /// The wait noted by the task that is being polled.
    wait: Cell<Wait>,
    /// Wakers without other holders, for reuse.
    spare: RefCell<Vec<Arc<TaskWaker>>>,
    /// True during a poll: its panic is caught, and then its message is known.
    polling: Cell<bool>,
    /// Waiters that get the reason once the panic of that poll has been caught.
    bereaved: RefCell<Vec<Tell>>,
}

impl Tasks {
    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Number of tasks that wait for their turn.
    pub(crate) fn ready(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Notes what the task being polled is about to wait for.
    #[inline]
    pub(crate) fn note_wait(&self, wait: Wait) {
        self.wait.set(wait);
    }

    /// Takes a future; it is polled in a later turn.
    pub(crate) fn spawn(
        &self,
        thread: &Arc<ThreadShared>,
        now: Time,
        future: LocalFuture,
        spawned_at: &'static Location<'static>,
        call_id: Option<CallId>,
    ) -> TaskKey {
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        let mut slots = self.slots.borrow_mut();
        let place = slots.vacant_entry();
        let key = TaskKey { index: place.key() as u32, generation };
        let waker = self.waker(thread, key);
        call_id.into_iter().for_each(|call_id| self.calls.borrow_mut().insert(call_id, key.index));
        place.insert(Slot {
            generation,
            future: Some(future),
            waker,
            spawned_at,
            spawned: now,
            polled: now,
            wait: Wait::Unknown,
            call_id,
            cancelled: false,
        });
        self.ready.borrow_mut().push_back(key);
        key
    }

    /// A waker for `key` that counts as woken: a reused one if it has no other holder.
    fn waker(&self, thread: &Arc<ThreadShared>, key: TaskKey) -> Arc<TaskWaker> {
        let mut spare = self.spare.borrow_mut().pop();
        if let Some(waker) = spare.as_mut().and_then(Arc::get_mut) {
            waker.reuse(key);
        }
        match spare {
            Some(waker) if waker.key == key => waker,
            _ => TaskWaker::new(thread.clone(), key),
        }
    }

    /// Schedules the task for a later turn, if it still lives.
    pub(crate) fn wake(&self, key: TaskKey) {
        self.ready.borrow_mut().push_back(key);
    }

    /// Polls one ready task: the first, or the one that `choose` picks. False if none is ready.
    pub(crate) fn poll_one(&self, host: &impl Host, choose: impl FnOnce(usize) -> usize) -> bool {
        let key = {
            let mut ready = self.ready.borrow_mut();
            let pick = if ready.len() > 1 { choose(ready.len()) } else { 0 };
            match if pick == 0 { ready.pop_front() } else { ready.remove(pick) } {
                Some(key) => key,
                None => return false,
            }
        };
        let Some((mut future, waker, spawned_at)) = self.take_future(key) else { return true };
        self.wait.set(Wait::Unknown);
        host.begin(CallKind::Task, Some(spawned_at));
        self.polling.set(true);
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        self.polling.set(false);
        drop(waker);
        match poll {
            Ok(Poll::Pending) => self.put_back(key, future, host.now()),
            Ok(Poll::Ready(())) => {
                drop_caught(future);
                self.remove(key);
            }
            Err(payload) => {
                let panicked = Panicked { message: panic_message(payload), spawned_at };
                host.report(&panicked);
                drop_caught(future);
                self.remove(key);
                let bereaved = std::mem::take(&mut *self.bereaved.borrow_mut());
                let reason = || RunError::Panicked(panicked.clone());
                bereaved.into_iter().for_each(|tell| call_caught(|| tell(reason())));
            }
        }
        true
    }

    fn take_future(&self, key: TaskKey) -> Option<(LocalFuture, Waker, &'static Location<'static>)> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        slot.waker.begin_poll();
        Some((slot.future.take()?, Waker::from(slot.waker.clone()), slot.spawned_at))
    }

    fn put_back(&self, key: TaskKey, future: LocalFuture, now: Time) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[key.index as usize];
        if slot.cancelled {
            drop(slots);
            drop_caught(future);
            self.remove(key);
        } else {
            slot.future = Some(future);
            slot.polled = now;
            slot.wait = self.wait.take();
        }
    }

    fn remove(&self, key: TaskKey) {
        let slot = self.slots.borrow_mut().remove(key.index as usize);
        slot.call_id.into_iter().for_each(|call_id| self.calls.borrow_mut().remove(call_id));
        let mut waker = slot.waker;
        if Arc::get_mut(&mut waker).is_some() {
            self.spare.borrow_mut().push(waker);
        }
    }

    /// Where a task was spawned, if it lives.
    pub(crate) fn spawned_at(&self, key: TaskKey) -> Option<&'static Location<'static>> {
        let slots = self.slots.borrow();
        let slot = slots.get(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        Some(slot.spawned_at)
    }

    /// Calls `tell` with the reason why a task ends without an answer: now, or when the panic of its poll has
    /// been caught and its message is known.
    pub(crate) fn tell_why(&self, tell: impl FnOnce(RunError) + 'static) {
        if self.polling.get() && std::thread::panicking() {
            self.bereaved.borrow_mut().push(Box::new(tell));
        } else {
            // Also during unwinding, when a second panic must not escape.
            call_caught(|| tell(RunError::Cancelled));
        }
    }

    /// Drops a task: at once, or when its poll returns.
    pub(crate) fn cancel(&self, key: TaskKey) {
        let future = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) =
                slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)
            else {
                return;
            };
            slot.cancelled = true;
            slot.future.take()
        };
        if let Some(future) = future {
            // If a poll is under way and panics, that is not this task's reason.
            let polling = self.polling.replace(false);
            drop_caught(future);
            self.polling.set(polling);
            self.remove(key);
        }
    }

    /// Drops the task that answers the call.
    pub(crate) fn cancel_call(&self, call_id: CallId) {
        let index = self.calls.borrow().find(call_id);
        let key = |index| {
            let slots = self.slots.borrow();
            slots.get(index as usize).map(|slot| TaskKey { index, generation: slot.generation })
        };
        if let Some(key) = index.and_then(key) {
            self.cancel(key);
        }
    }

    /// Drops all tasks.
    pub(crate) fn cancel_all(&self) {
        let keys: Vec<_> = self
            .slots
            .borrow()
            .iter()
            .map(|(index, slot)| TaskKey { index: index as u32, generation: slot.generation })
            .collect();
        keys.into_iter().for_each(|key| self.cancel(key));
    }

    /// Descriptions of the tasks, for a dump.
    pub(crate) fn infos(&self) -> Vec<TaskInfo> {
        let slots = self.slots.borrow();
        let info = |slot: &Slot| TaskInfo {
            spawned_at: slot.spawned_at,
            spawned: slot.spawned,
            ready: slot.waker.is_marked(),
            polled: slot.polled,
            wait: slot.wait.clone(),
        };
        slots.iter().map(|(_, slot)| info(slot)).collect()
    }
}
