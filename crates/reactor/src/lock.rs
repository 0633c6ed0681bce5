//! Locks that threads of one runtime may share, checked for what can still go wrong in safe Rust.
//!
//! Owned by whoever holds the value, on any thread; held by a Spindle thread, not by an OS thread. Prefer a
//! message: a lock is for short, bounded work. [`Lock::with`] cannot span an await. A guard from
//! [`Lock::lock`] must not: a lint refuses it, and a thread that goes off its core with a guard is reported
//! with SPDK's code 7. Of SPDK's nine spinlock errors three can happen here; the others cannot be written.
//!
//! A lock that its holder took off the core, or took along when it exited, is an error (code 7) for whoever
//! wants it too: waiting for it would hold a core for ever. A panic under a lock poisons it.
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

/// What a runtime does when one of its locks finds a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockAction {
    /// Panics where the mistake is made: that task ends, the rest goes on. A thread that goes off its core
    /// with a lock held (code 7) is reported, and goes on.
    #[default]
    Panic,
    /// Reports it and ends the process, as SPDK does.
    Abort,
}

/// Who holds a lock, and where it was taken.
struct Holder {
    thread: Arc<ThreadShared>,
    /// The guard's number among its thread's.
    number: u64,
    taken_at: &'static Location<'static>,
}

impl Holder {
    /// Whether the lock is held by a thread that is not running: `me` shares a reactor with it, or it took
    /// the guard off its core, or it has exited.
    fn is_off_cpu(&self, me: &Holder) -> bool {
        let (its, mine) = (&self.thread, &me.thread);
        let same_reactor = Arc::ptr_eq(&its.runtime, &mine.runtime) && its.reactor == mine.reactor;
        same_reactor || its.is_gone() || locked(&its.off_cpu).contains(&self.number)
    }

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

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Forgets a guard; false if it was reported as held off the CPU.
    fn remove(&mut self, number: u64) -> bool {
        let found = self.guards.iter().rposition(|guard| guard.number == number);
        found.map(|index| self.guards.remove(index)).is_some()
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
    /// As [`lock`](Self::lock).
    #[track_caller]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock())
    }

    /// Takes the lock until the guard is dropped. The guard must not be held across an await.
    ///
    /// # Panics
    /// Code 1 away from a Spindle thread; code 2 when this thread holds the lock already; code 7 when
    /// another holds it that does not run; and when the lock is poisoned.
    #[track_caller]
    pub fn lock(&self) -> LockGuard<'_, T> {
        let taken_at = Location::caller();
        let Some(core) = current::cloned() else {
            let place = "no Spindle thread runs here".to_owned();
            self.fault(LockFault::NotOnThread, taken_at, &place, "take it inside Runtime::run or Thread::run")
        };
        let number = core.held.borrow_mut().number();
        let me = Holder { thread: core.shared.clone(), number, taken_at };
        let value = self.wait(&me);
        *locked(&self.holder) = Some(me);
        core.held.borrow_mut().guards.push(HeldGuard { number, lock: self.name.clone(), taken_at });
        LockGuard { lock: self, value: Some(value), held: core.held.clone(), number, _not_send: PhantomData }
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
                Err(TryLockError::WouldBlock) => {}
            }
            if let Some((fault, remedy)) = self.hopeless(me) {
                self.fault(fault, me.taken_at, &me.place(), &remedy);
            }
            if spin % SPINS_BEFORE_YIELD == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        unreachable!("spinning ends with the lock")
    }

    /// Why waiting for the lock would never end, if it would not.
    fn hopeless(&self, me: &Holder) -> Option<(LockFault, String)> {
        let holder = locked(&self.holder);
        let holder = holder.as_ref()?;
        let taken_at = holder.taken_at;
        if Arc::ptr_eq(&holder.thread, &me.thread) {
            let remedy = format!("it holds the lock since {taken_at}; drop that guard first");
            return Some((LockFault::Deadlock, remedy));
        }
        holder.is_off_cpu(me).then(|| {
            let remedy = format!(
                "{}, which is off its core, holds it since {taken_at}; there drop the guard before the await, \
                 or use Lock::with",
                holder.place()
            );
            (LockFault::HeldOffCpu, remedy)
        })
    }

    /// Whether something panicked while it held the lock.
    pub fn is_poisoned(&self) -> bool {
        self.value.is_poisoned()
    }

    /// Says that the value is whole all the same: the lock can be taken again.
    pub fn clear_poison(&self) {
        self.value.clear_poison();
    }

    #[track_caller]
    fn fault(&self, fault: LockFault, at: &Location<'_>, place: &str, remedy: &str) -> ! {
        let report = format!(
            "lock {}, code {} ({fault:?}): taken at {at} by {place}; {remedy}",
            self.name, fault as u8
        );
        // Away from Spindle threads there is no runtime to choose.
        let action = current::with(|core| core.map(|core| core.local.shared.lock_action));
        if action == Some(LockAction::Abort) {
            eprintln!("spindle: {report}");
            std::process::abort();
        }
        panic!("{report}")
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
        let was_here = self.held.borrow_mut().remove(self.number);
        let holder = locked(&self.lock.holder).take();
        if let Some(holder) = holder.filter(|_| !was_here) {
            locked(&holder.thread.off_cpu).retain(|number| *number != self.number);
        }
        drop(self.value.take());
    }
}

/// The report of a thread that goes off its core with guards held; none if it holds none. The guards stay:
/// they may still be dropped later, so each is reported once.
pub(crate) fn report_held(held: &Held, thread: &ThreadShared) -> Option<String> {
    let guards = std::mem::take(&mut held.borrow_mut().guards);
    locked(&thread.off_cpu).extend(guards.iter().map(|guard| guard.number));
    let (id, name, core) = (thread.id, &thread.name, thread.runtime.cores[thread.reactor]);
    let names: Vec<String> =
        guards.iter().map(|guard| format!("{}, taken at {}", guard.lock, guard.taken_at)).collect();
    (!names.is_empty()).then(|| {
        format!(
            "lock {}: code {} (HeldOffCpu): held while thread {id} ({name}) goes off core {core}; \
             drop the guard before the await, or use Lock::with",
            names.join("; lock "),
            LockFault::HeldOffCpu as u8
        )
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
