//! The log of bdevs that were registered, unregistered or resized, for clients that poll it.
//!
//! A ring of the last 1024 entries, as in SPDK: older ones are dropped, and ids keep counting.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Number of entries kept.
const KEPT: usize = 1024;

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotificationKind {
    /// A bdev was registered, and examined by every module.
    Register,
    /// A bdev is gone.
    Unregister,
    /// A bdev's size has changed.
    Resize,
}

impl NotificationKind {
    /// All kinds, in the order in which SPDK lists them.
    pub const ALL: [NotificationKind; 3] =
        [NotificationKind::Register, NotificationKind::Unregister, NotificationKind::Resize];

    /// Its name in `notify_get_types`.
    pub fn name(self) -> &'static str {
        match self {
            NotificationKind::Register => "bdev_register",
            NotificationKind::Unregister => "bdev_unregister",
            NotificationKind::Resize => "bdev_resize",
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Its number, from 0, in the order of the events.
    pub id: u64,
    /// Its kind.
    pub kind: NotificationKind,
    /// The name of the bdev.
    pub name: String,
}

/// The log.
#[derive(Default)]
pub(crate) struct Notifications(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    next: u64,
    kept: VecDeque<Notification>,
}

impl Notifications {
    pub(crate) fn add(&self, kind: NotificationKind, name: &str) {
        let mut ring = self.ring();
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        let id = ring.next;
        ring.next += 1;
        ring.kept.push_back(Notification { id, kind, name: name.to_owned() });
    }

    /// Those from `id` on, the oldest first, `max` at most.
    pub(crate) fn from(&self, id: u64, max: u64) -> Vec<Notification> {
        let ring = self.ring();
        let oldest = ring.next - ring.kept.len() as u64;
        let skip = usize::try_from(id.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        ring.kept.iter().skip(skip).take(max).cloned().collect()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_the_last_1024_and_ids_count_on() {
        let log = Notifications::default();
        assert_eq!(log.from(0, u64::MAX), []);
        for number in 0..1030 {
            log.add(NotificationKind::Register, &format!("b{number}"));
        }
        let all = log.from(0, u64::MAX);
        assert_eq!((all.len(), all[0].id, all[1023].id), (1024, 6, 1029));
        assert_eq!(all[0].name, "b6");
        let some = log.from(1000, 2);
        assert_eq!(some.iter().map(|n| n.id).collect::<Vec<_>>(), [1000, 1001]);
        assert!(log.from(u64::MAX, 1).is_empty() && log.from(0, 0).is_empty());
    }
}
