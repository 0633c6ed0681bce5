//! The order in which the locks of a runtime are taken, checked before it can hang.
//!
//! Whenever a lock is taken while another is held, that order is noted. Taking two locks in an order that
//! contradicts a noted one is a mistake even if nothing waits this time: two threads that do so at once wait
//! for each other. Checked in debug builds, or as set by the [builder](crate::Builder::check_lock_order);
//! costs a search for each lock taken under another.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::shared::lock_state::LockState;

/// A lock by its address, which is not reused while it is listed here.
type Key = usize;

/// Number of noted orders at which dropped locks are first looked for.
const FIRST_LOOK: usize = 64;

/// Where a lock was held, and where another was taken.
#[derive(Clone, Copy)]
struct Seen {
    held_since: &'static Location<'static>,
    taken_at: &'static Location<'static>,
}

struct Node {
    /// Prevents reuse of the address.
    lock: Weak<LockState>,
    /// The locks taken under it.
    then: BTreeMap<Key, Seen>,
}

/// The order of a runtime's locks.
#[derive(Default)]
pub(crate) struct LockOrder(Mutex<Known>);

#[derive(Default)]
struct Known {
    nodes: BTreeMap<Key, Node>,
    look_at: usize,
}

/// A lock that a reactor holds, and where it was taken.
pub(crate) type HeldLock = (Arc<LockState>, &'static Location<'static>);

fn key(lock: &Arc<LockState>) -> Key {
    Arc::as_ptr(lock).addr()
}

impl LockOrder {
    /// Notes that `lock` is taken at `at` while `held` are held.
    ///
    /// # Errors
    /// The order was the other way round elsewhere: described in words.
    pub(crate) fn take(
        &self,
        held: &[HeldLock],
        lock: &Arc<LockState>,
        at: &'static Location<'static>,
    ) -> Result<(), String> {
        if held.is_empty() {
            return Ok(());
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (before, since) in held {
            if let Some(Seen { held_since, taken_at }) = known.first_step(key(lock), key(before)) {
                return Err(format!(
                    "lock {} has been held since {since}; elsewhere lock {} was taken first, at {held_since}, and \
                     then another at {taken_at}: two threads that do so at once wait for each other, so take them \
                     in one order",
                    before.name, lock.name
                ));
            }
        }
        for (before, since) in held {
            known.note(before, lock, Seen { held_since: since, taken_at: at });
        }
        Ok(())
    }
}

impl Known {
    /// The first step of a path from one lock to another, if there is one.
    fn first_step(&self, from: Key, to: Key) -> Option<Seen> {
        let node = self.nodes.get(&from)?;
        let mut been = BTreeSet::from([from]);
        node.then.iter().find(|(next, _)| self.leads(**next, to, &mut been)).map(|(_, seen)| *seen)
    }

    fn leads(&self, from: Key, to: Key, been: &mut BTreeSet<Key>) -> bool {
        let mut open = vec![from];
        while let Some(next) = open.pop() {
            if next == to {
                return true;
            }
            if been.insert(next) {
                open.extend(self.nodes.get(&next).into_iter().flat_map(|node| node.then.keys()));
            }
        }
        false
    }

    fn note(&mut self, before: &Arc<LockState>, after: &Arc<LockState>, seen: Seen) {
        self.node(after);
        self.node(before).then.entry(key(after)).or_insert(seen);
    }

    fn node(&mut self, lock: &Arc<LockState>) -> &mut Node {
        if self.nodes.len() >= self.look_at.max(FIRST_LOOK) {
            self.forget_the_gone();
        }
        self.nodes
            .entry(key(lock))
            .or_insert_with(|| Node { lock: Arc::downgrade(lock), then: BTreeMap::new() })
    }

    /// Removes dropped locks, since a program may make any number of locks.
    fn forget_the_gone(&mut self) {
        let gone: BTreeSet<Key> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.lock.strong_count() == 0)
            .map(|(key, _)| *key)
            .collect();
        self.nodes.retain(|key, node| {
            node.then.retain(|next, _| !gone.contains(next));
            !gone.contains(key)
        });
        self.look_at = 2 * self.nodes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_contradicted_also_over_a_third_lock_and_forgotten_with_its_locks() {
        let order = LockOrder::default();
        let at = Location::caller();
        let [a, b, c] = ["a", "b", "c"].map(LockState::new);
        order.take(&[(a.clone(), at)], &b, at).unwrap();
        order.take(&[(b.clone(), at)], &c, at).unwrap();
        order.take(&[(a.clone(), at)], &c, at).unwrap();
        let error = order.take(&[(c.clone(), at)], &a, at).unwrap_err();
        assert!(error.contains("lock c") && error.contains("lock a"), "{error}");
        order.take(&[], &a, at).unwrap();
        for _ in 0..10_000 {
            let [x, y] = ["x", "y"].map(LockState::new);
            order.take(&[(x, at)], &y, at).unwrap();
        }
        assert!(order.0.lock().unwrap().nodes.len() < 2 * FIRST_LOOK);
    }
}
