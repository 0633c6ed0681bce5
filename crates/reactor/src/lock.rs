//! Locks that threads of one runtime may share, checked for what can still go wrong in safe Rust.
//!
//! Owned by whoever holds the value, on any thread; held by a Spindle thread, not by an OS thread. Prefer a
//! message: a lock is for short, bounded work. [`Lock::with`] cannot span an await. A guard from
//! [`Lock::lock`] must not: a lint refuses it, and a thread that goes off its core with a guard is reported
//! with SPDK's code 7. Of SPDK's nine spinlock errors three can happen here; the others cannot be written.
//!
//! Not promised: fairness. Waiting spins, as in SPDK, and yields the OS thread now and then.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

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
    /// Taken again by the thread that holds it.
    Deadlock = 2,
    /// Held when the thread went off its core.
    HeldOffCpu = 7,
}

/// Who holds a lock, and where it was taken.
struct Holder {
    thread: Arc<ThreadShared>,
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

/// The guards that one thread holds.
#[derive(Default)]
pub(crate) struct HeldGuards {
    next: u64,
    guards: Vec<HeldGuard>,
}

struct HeldGuard {
    number: u64,
    lock: Arc<str>,
    taken_at: &'static Location<'static>,
}

/// Shared by the thread and its guards.
pub(crate) type Held = Rc<RefCell<HeldGuards>>;

impl HeldGuards {
    pub(crate) fn is_empty(&self) -> bool {
        self.guards.is_empty()
    }

    fn add(&mut self, lock: Arc<str>, taken_at: &'static Location<'static>) -> u64 {
        self.next += 1;
        self.guards.push(HeldGuard { number: self.next, lock, taken_at });
        self.next
    }
}

impl<T> Lock<T> {
    /// A free lock; `name` appears in reports.
    pub fn new(name: &str, value: T) -> Lock<T> {
        Lock { name: name.into(), value: Mutex::new(value), holder: Mutex::new(None) }
    }

    /// Calls `f` with the value, alone. Nothing of the value can leave the call, and no await fits in.
    ///
    /// # Panics
    /// Code 1 away from a Spindle thread, code 2 when this thread holds the lock already.
    #[track_caller]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock())
    }

    /// Takes the lock until the guard is dropped. The guard must not be held across an await.
    ///
    /// # Panics
    /// Code 1 away from a Spindle thread, code 2 when this thread holds the lock already.
    #[track_caller]
    pub fn lock(&self) -> LockGuard<'_, T> {
        let taken_at = Location::caller();
        let Some(core) = current::with(|core| core.cloned()) else {
            let place = "no Spindle thread runs here".to_owned();
            self.fault(LockFault::NotOnThread, taken_at, &place, "take it inside Runtime::run or Thread::run")
        };
        let me = Holder { thread: core.shared.clone(), taken_at };
        let value = self.wait(&me);
        *locked(&self.holder) = Some(me);
        let number = core.held.borrow_mut().add(self.name.clone(), taken_at);
        LockGuard { lock: self, value: Some(value), held: core.held.clone(), number, _not_send: PhantomData }
    }

    fn wait(&self, me: &Holder) -> MutexGuard<'_, T> {
        for spin in 1u32.. {
            match self.value.try_lock() {
                Ok(value) => return value,
                // A panic while it was held was reported by its task; the value is as that left it.
                Err(TryLockError::Poisoned(value)) => return value.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = locked(&self.holder);
            let mine = holder.as_ref().filter(|holder| Arc::ptr_eq(&holder.thread, &me.thread));
            if let Some(taken_at) = mine.map(|holder| holder.taken_at) {
                drop(holder);
                let remedy = format!("it holds the lock since {taken_at}; drop that guard first");
                self.fault(LockFault::Deadlock, me.taken_at, &me.place(), &remedy);
            }
            drop(holder);
            if spin % SPINS_BEFORE_YIELD == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        unreachable!("spinning ends with the lock")
    }

    #[track_caller]
    fn fault(&self, fault: LockFault, at: &Location<'_>, place: &str, remedy: &str) -> ! {
        panic!("lock {}, code {} ({fault:?}): taken at {at} by {place}; {remedy}", self.name, fault as u8)
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({})", self.name)
    }
}

/// A held lock. `!Send`: it belongs to the thread that took it.
#[must_use = "the lock is free again as soon as the guard is dropped"]
pub struct LockGuard<'a, T> {
    lock: &'a Lock<T>,
    /// There until dropped.
    value: Option<MutexGuard<'a, T>>,
    held: Held,
    /// Its number among its thread's guards.
    number: u64,
    _not_send: PhantomData<*const ()>,
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until dropped")
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("there until dropped")
    }
}

impl<T> Drop for LockGuard<'_, T> {
    fn drop(&mut self) {
        self.held.borrow_mut().guards.retain(|guard| guard.number != self.number);
        *locked(&self.lock.holder) = None;
        drop(self.value.take());
    }
}

/// The report of a thread that goes off its core with guards held; none if it holds none. The guards stay:
/// they may still be dropped later, so each is reported once.
pub(crate) fn report_held(held: &Held, thread: &str, id: u64, core: usize) -> Option<String> {
    let guards = std::mem::take(&mut held.borrow_mut().guards);
    let names: Vec<String> =
        guards.iter().map(|guard| format!("{}, taken at {}", guard.lock, guard.taken_at)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "lock {}: code {} (HeldOffCpu): held while thread {id} ({thread}) goes off core {core}; \
             drop the guard before the await, or use Lock::with",
            names.join("; lock "),
            LockFault::HeldOffCpu as u8
        )
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
