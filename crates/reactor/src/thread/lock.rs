//! Locks that threads of one runtime may share, checked for what can still go wrong in safe Rust.
//!
//! Owned with its value, on any thread; held by a Spindle thread, for one call of [`Lock::with`] or
//! [`Lock::with_guard`] at most. Prefer a message: a lock is for short, bounded work.
//!
//! The value, or a guard that can release it early, is lent to a function that is not async, so it cannot leave the
//! call, the function cannot await, and no thread yields its core while it holds a lock. Of SPDK's nine spinlock
//! errors three can happen here; the others cannot be written. A panic under a lock poisons it.
//!
//! Not promised: fairness. Waiting spins, as in SPDK, and yields the OS thread now and then.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use crate::local::current;
use crate::local::thread_core::ThreadCore;
use crate::say::ReportLevel;
use crate::shared::lock_state::{Holder, LockAction, LockState};
use crate::shared::lock_wait::circle;

/// Turns of spinning before the OS thread is yielded: the holder may need this core.
const SPINS_BEFORE_YIELD: u32 = 128;

/// Yields before the wait is made known, and yields between two searches for a circle of waits.
const YIELDS_BEFORE_LOOK: u32 = 16;

/// Mistakes with a checked lock, by SPDK's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LockFault {
    /// Taken on a plain OS thread.
    NotOnThread = 1,
    /// Taken again inside the call that holds it; waited for in a circle; or taken in an order that
    /// contradicts an earlier one, where that is [checked](crate::Builder::check_lock_order).
    Deadlock = 2,
    /// Its guard was forgotten: the call is over, and the lock was not released.
    Held = 7,
}

/// A value protected by a checked lock.
pub struct Lock<T> {
    state: Arc<LockState>,
    value: Mutex<T>,
}

impl<T> Lock<T> {
    /// A free lock; `name` appears in reports.
    pub fn new(name: &str, value: T) -> Lock<T> {
        Lock { state: LockState::new(name), value: Mutex::new(value) }
    }

    /// Calls `f` with exclusive access to the value. No reference to the value can leave the call, and `f` cannot
    /// await.
    ///
    /// # Panics
    /// Code 1 outside a Spindle thread; code 2 inside a call that holds the lock; and when the lock is
    /// poisoned. With [`LockAction::Abort`] the first two end the process instead.
    #[track_caller]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let mut held = self.take(Location::caller());
        f(&mut held.value)
    }

    /// Calls `f` with a guard of the value. Dropping the guard releases the lock, at the latest at the end of
    /// the call. The guard cannot leave the call, and `f` cannot await.
    ///
    /// # Panics
    /// As [`with`](Self::with), and code 7 if the guard was forgotten ([`std::mem::forget`]). The lock is
    /// released all the same.
    #[track_caller]
    pub fn with_guard<R>(&self, f: impl FnOnce(LockGuard<'_, '_, T>) -> R) -> R {
        let taken_at = Location::caller();
        let mut held = Some(self.take(taken_at));
        let result = f(LockGuard { held: &mut held });
        if held.take().is_some() {
            let place = current::cloned().map_or_else(String::new, |core| holder(&core, taken_at).place());
            self.fault(LockFault::Held, taken_at, &place, "its guard was forgotten: drop it instead")
        }
        result
    }

    /// Waits for the lock and takes it.
    fn take(&self, taken_at: &'static Location<'static>) -> Held<'_, T> {
        let Some(core) = current::cloned() else {
            let place = "code that runs on no Spindle thread";
            self.fault(LockFault::NotOnThread, taken_at, place, "take it inside Runtime::run or Thread::run")
        };
        let me = holder(&core, taken_at);
        // The wait distinguishes a second call of the same thread from a wrong order.
        let is_mine = || self.state.holder().is_some_and(|holder| holder.os_thread == me.os_thread);
        let order = core.local.shared.lock_order.as_ref();
        if let Some(order) = order.filter(|_| !is_mine())
            && let Err(why) = order.take(&core.local.locks.borrow(), &self.state, taken_at)
        {
            self.fault(LockFault::Deadlock, taken_at, &me.place(), &why)
        }
        let value = self.wait(&me);
        self.state.set_holder(Some(me));
        if order.is_some() {
            core.local.locks.borrow_mut().push((self.state.clone(), taken_at));
        }
        Held { _holding: Holding { lock: &self.state, core }, value }
    }

    fn wait(&self, me: &Holder) -> MutexGuard<'_, T> {
        let mut noted = None;
        for spin in 1u32.. {
            match self.value.try_lock() {
                Ok(value) => return value,
                Err(TryLockError::Poisoned(value)) => {
                    drop(value);
                    panic!(
                        "lock {} is poisoned: a panic under it, reported then, may have left its value half \
                         changed; Lock::clear_poison says that it is whole",
                        self.state.name
                    )
                }
                // Once is enough: this OS thread runs nothing else while it waits.
                Err(TryLockError::WouldBlock) if spin == 1 => self.check_own(me),
                Err(TryLockError::WouldBlock) => {}
            }
            if spin % SPINS_BEFORE_YIELD != 0 {
                std::hint::spin_loop();
                continue;
            }
            std::thread::yield_now();
            if (spin / SPINS_BEFORE_YIELD).is_multiple_of(YIELDS_BEFORE_LOOK) {
                noted.get_or_insert_with(|| me.waits.note(&self.state, me));
                self.check_circle(me);
            }
        }
        unreachable!("spinning ends with the lock")
    }

    /// Waiting for a lock that this OS thread itself holds would never end.
    fn check_own(&self, me: &Holder) {
        if let Some(holder) = self.state.holder().filter(|holder| holder.os_thread == me.os_thread) {
            let (place, since) = (holder.place(), holder.taken_at);
            let remedy = format!("{place} holds it since {since}, and lets go only when that call returns");
            self.fault(LockFault::Deadlock, me.taken_at, &me.place(), &remedy)
        }
    }

    /// Waiting for a thread that waits for this one would never end.
    fn check_circle(&self, me: &Holder) {
        if let Some(circle) = circle(&self.state, me) {
            let remedy = format!("{circle}: each waits for the other, so take these locks in one order");
            self.fault(LockFault::Deadlock, me.taken_at, &me.place(), &remedy)
        }
    }

    /// True if a holder panicked.
    pub fn is_poisoned(&self) -> bool {
        self.value.is_poisoned()
    }

    /// Declares the value valid: the lock can be taken again.
    pub fn clear_poison(&self) {
        self.value.clear_poison();
    }

    fn fault(&self, fault: LockFault, at: &Location<'_>, place: &str, remedy: &str) -> ! {
        let report = format!(
            "lock {}, code {} ({fault:?}): taken at {at} by {place}; {remedy}",
            self.state.name, fault as u8
        );
        // Outside Spindle threads there is no runtime to report to, and no configured action.
        let runtime = current::with(|core| core.map(|core| core.local.shared.clone()));
        if let Some(runtime) = runtime {
            runtime.note_lock_report(&report);
            if runtime.lock_action == LockAction::Abort {
                runtime.reports.say(ReportLevel::Error, format_args!("{report}"));
                std::process::abort();
            }
        }
        panic!("{report}")
    }
}

/// The current thread as the holder of a lock that it takes at `taken_at`.
fn holder(core: &ThreadCore, taken_at: &'static Location<'static>) -> Holder {
    let (thread, runtime) = (&core.shared, &core.shared.runtime);
    Holder {
        thread: thread.id,
        name: thread.name.clone(),
        reactor: thread.reactor,
        core: runtime.cores[thread.reactor],
        waits: runtime.lock_waits.clone(),
        os_thread: std::thread::current().id(),
        taken_at,
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({})", self.state.name)
    }
}

/// The value of a held lock, for the rest of a call of [`Lock::with_guard`]. Dropping it frees the lock.
pub struct LockGuard<'call, 'lock, T> {
    /// `Some` until dropped, which [`Lock::with_guard`] checks.
    held: &'call mut Option<Held<'lock, T>>,
}

impl<T> Deref for LockGuard<'_, '_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held.as_ref().expect("it is emptied by dropping the guard").value
    }
}

impl<T> DerefMut for LockGuard<'_, '_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.held.as_mut().expect("it is emptied by dropping the guard").value
    }
}

impl<T> Drop for LockGuard<'_, '_, T> {
    fn drop(&mut self) {
        *self.held = None;
    }
}

/// A held lock. Its holder is cleared before the value is free.
struct Held<'a, T> {
    _holding: Holding<'a>,
    value: MutexGuard<'a, T>,
}

/// Removes the lock from the list of held ones when dropped.
struct Holding<'a> {
    lock: &'a Arc<LockState>,
    core: Rc<ThreadCore>,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.lock.set_holder(None);
        let mut held = self.core.local.locks.borrow_mut();
        // Not in the list if the order is not checked.
        let place = held.iter().rposition(|(lock, _)| Arc::ptr_eq(lock, self.lock));
        place.into_iter().for_each(|place| drop(held.remove(place)));
    }
}
