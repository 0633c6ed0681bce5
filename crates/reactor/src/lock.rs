//! Locks that threads of one runtime may share, checked for what can still go wrong in safe Rust.
//!
//! Owned by whoever holds the value, on any thread; held by a Spindle thread, for one call of
//! [`Lock::with`]. Prefer a message: a lock is for short, bounded work.
//!
//! There is no guard to keep: the value is lent to a function that is not async, so nothing of it can leave
//! the call, no await fits in, and no thread goes off its core with a lock. Of SPDK's nine spinlock errors
//! two can happen here; the others cannot be written. A panic under a lock poisons it.
//!
//! Not promised: fairness. Waiting spins, as in SPDK, and yields the OS thread now and then.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::ThreadId;

use crate::current;
use crate::thread::ThreadShared;

/// Turns of spinning before the OS thread is yielded: the holder may need this core.
const SPINS_BEFORE_YIELD: u32 = 128;

/// What can go wrong with a checked lock, by SPDK's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LockFault {
    /// Taken on a plain OS thread.
    NotOnThread = 1,
    /// Taken again within the call that holds it.
    Deadlock = 2,
}

/// What a runtime does when one of its locks finds a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockAction {
    /// Panics where the mistake is made: that task ends, the rest goes on.
    #[default]
    Panic,
    /// Reports it and ends the process, as SPDK does.
    Abort,
}

/// Who holds a lock, and where it was taken.
struct Holder {
    thread: Arc<ThreadShared>,
    /// What it runs on: a thread that is stepped within the call may be another one of the same.
    os_thread: ThreadId,
    taken_at: &'static Location<'static>,
}

impl Holder {
    /// The thread and its core, for a report.
    fn place(&self) -> String {
        let thread = &self.thread;
        format!("thread {} ({}) on core {}", thread.id, thread.name, thread.runtime.cores[thread.reactor])
    }
}

/// A value behind a checked lock.
pub struct Lock<T> {
    name: Arc<str>,
    value: Mutex<T>,
    holder: Mutex<Option<Holder>>,
}

impl<T> Lock<T> {
    /// A free lock; `name` appears in reports.
    pub fn new(name: &str, value: T) -> Lock<T> {
        Lock { name: name.into(), value: Mutex::new(value), holder: Mutex::new(None) }
    }

    /// Calls `f` with the value, alone. Nothing of the value can leave the call, and no await fits in.
    ///
    /// # Panics
    /// Code 1 away from a Spindle thread; code 2 within a call that holds the lock; and when the lock is
    /// poisoned. [`LockAction::Abort`] ends the process instead of the first two.
    #[track_caller]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let taken_at = Location::caller();
        let Some(core) = current::cloned() else {
            let place = "no Spindle thread runs here";
            self.fault(LockFault::NotOnThread, taken_at, place, "take it inside Runtime::run or Thread::run")
        };
        let me = Holder { thread: core.shared.clone(), os_thread: std::thread::current().id(), taken_at };
        let mut value = self.wait(&me);
        *locked(&self.holder) = Some(me);
        // Dropped before the value is free, also when `f` panics.
        let _held = Held(&self.holder);
        f(&mut value)
    }

    fn wait(&self, me: &Holder) -> MutexGuard<'_, T> {
        for spin in 1u32.. {
            match self.value.try_lock() {
                Ok(value) => return value,
                Err(TryLockError::Poisoned(value)) => {
                    drop(value);
                    panic!(
                        "lock {} is poisoned: a panic under it, reported then, may have left its value half \
                         changed; Lock::clear_poison says that it is whole",
                        self.name
                    )
                }
                // Once is enough: nothing else of this OS thread runs while it waits.
                Err(TryLockError::WouldBlock) if spin == 1 => self.check_deadlock(me),
                Err(TryLockError::WouldBlock) => {}
            }
            if spin % SPINS_BEFORE_YIELD == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        unreachable!("spinning ends with the lock")
    }

    /// Waiting for what this OS thread itself holds would never end.
    fn check_deadlock(&self, me: &Holder) {
        let holds = {
            let holder = locked(&self.holder);
            holder
                .as_ref()
                .filter(|holder| holder.os_thread == me.os_thread)
                .map(|holder| (holder.place(), holder.taken_at))
        };
        if let Some((holder, since)) = holds {
            let remedy = format!("{holder} holds it since {since}, and lets go only when that call returns");
            self.fault(LockFault::Deadlock, me.taken_at, &me.place(), &remedy)
        }
    }

    /// Whether something panicked while it held the lock.
    pub fn is_poisoned(&self) -> bool {
        self.value.is_poisoned()
    }

    /// Says that the value is whole all the same: the lock can be taken again.
    pub fn clear_poison(&self) {
        self.value.clear_poison();
    }

    fn fault(&self, fault: LockFault, at: &Location<'_>, place: &str, remedy: &str) -> ! {
        let report = format!(
            "lock {}, code {} ({fault:?}): taken at {at} by {place}; {remedy}",
            self.name, fault as u8
        );
        // Away from Spindle threads there is no runtime to tell, and none that chose.
        let runtime = current::with(|core| core.map(|core| core.local.shared.clone()));
        if let Some(runtime) = runtime {
            runtime.note_lock_report(&report);
            if runtime.lock_action == LockAction::Abort {
                eprintln!("spindle: {report}");
                std::process::abort();
            }
        }
        panic!("{report}")
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({})", self.name)
    }
}

/// Says at the end of a call that nobody holds the lock.
struct Held<'a>(&'a Mutex<Option<Holder>>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let holder = locked(self.0).take();
        drop(holder);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
