//! The locks that reactors wait for, and circles of such waits.
//!
//! One entry per reactor, in the runtime's shared state: a reactor that waits for a lock does nothing else.
//! Written by waits that take longer than usual; read by other waits that search for a circle, by the
//! watchdog and for dumps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::shared::lock_state::{Holder, LockState};

/// The longest circle that is searched for: a longer one shows in the watchdog's reports.
const LONGEST: usize = 64;

/// One wait.
#[derive(Clone)]
struct Waiting {
    lock: Arc<LockState>,
    waiter: Holder,
    number: u64,
}

/// What each reactor of a runtime waits for.
pub(crate) struct LockWaits {
    by_reactor: Box<[Mutex<Option<Waiting>>]>,
    /// Waits so far.
    count: AtomicU64,
}

/// A noted wait, until this is dropped.
pub(crate) struct Noted<'a> {
    place: &'a Mutex<Option<Waiting>>,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let wait = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(wait);
    }
}

impl LockWaits {
    pub(crate) fn new(reactors: usize) -> LockWaits {
        LockWaits { by_reactor: (0..reactors).map(|_| Mutex::default()).collect(), count: AtomicU64::new(0) }
    }

    /// Notes that the thread of `waiter` waits for `lock`.
    pub(crate) fn note(&self, lock: &Arc<LockState>, waiter: &Holder) -> Noted<'_> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let place = &self.by_reactor[waiter.reactor];
        let wait = Waiting { lock: lock.clone(), waiter: waiter.clone(), number };
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(wait);
        Noted { place }
    }

    fn of(holder: &Holder) -> Option<Waiting> {
        holder.waits.by_reactor[holder.reactor].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lock that a reactor waits for, if any.
    pub(crate) fn describe(&self, reactor: usize) -> Option<String> {
        let wait = self.by_reactor[reactor].lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let Waiting { lock, waiter, .. } = wait;
        let held = match lock.holder() {
            Some(holder) => format!("held by {} since {}", holder.place(), holder.taken_at),
            None => "free by now".to_owned(),
        };
        Some(format!("{} waits for lock {} at {}, {held}", waiter.place(), lock.name, waiter.taken_at))
    }
}

/// The circle that the wait of `waiter` for `lock` closes, in words; `None` if the wait will end. Each link
/// was seen twice within the same wait: a lock that was released in between is no link.
pub(crate) fn circle(lock: &Arc<LockState>, waiter: &Holder) -> Option<String> {
    let (first, seen) = walk(lock, waiter)?;
    let (_, again) = walk(lock, waiter)?;
    (seen == again).then_some(first)
}

/// Follows the holders from `lock` on. Returns a circle in words, and the numbers of its waits.
fn walk(lock: &Arc<LockState>, waiter: &Holder) -> Option<(String, Vec<u64>)> {
    let (mut lock, mut waits) = (lock.clone(), Vec::new());
    let mut words = String::new();
    while waits.len() < LONGEST {
        let holder = lock.holder()?;
        if !words.is_empty() {
            words.push_str(", ");
        }
        words += &format!("{} has held lock {} since {}", holder.place(), lock.name, holder.taken_at);
        if holder.os_thread == waiter.os_thread {
            return Some((words, waits));
        }
        let wait = LockWaits::of(&holder)?;
        words += &format!(" and waits for lock {} at {}", wait.lock.name, wait.waiter.taken_at);
        waits.push(wait.number);
        lock = wait.lock;
    }
    None
}
