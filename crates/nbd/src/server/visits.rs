//! How often each origin may come without wanting anything.
//!
//! A connection costs its reactor some hundred microseconds until it is known what its client wants, if anything. So
//! connections that come to nothing are paid from an account of their [origin](Origin), which fills again with time;
//! one that makes a request, or leaves as the protocol says, gets its payment back. Shared by all threads of a server.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spindle_engine::Time;

use crate::origin::Origin;

/// Connections of one origin that may wait for their turn.
const WAITING: u32 = 64;

/// Origins whose accounts are kept; beyond that, full ones are forgotten.
const KEPT: usize = 1024;

/// When a connection may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    After(Duration),
    /// Too many wait: close it.
    Never,
}

/// The accounts of a server.
pub(crate) struct Visits {
    /// The time in which the account of an origin grows by one connection, and in which an empty one is full.
    one: Duration,
    full: Duration,
    /// When the account of an origin will be full, for those that are not.
    accounts: Mutex<BTreeMap<Origin, Time>>,
}

impl Visits {
    /// Accounts of `most` connections that grow by `per_second`, each at least 1.
    pub(crate) fn new(most: usize, per_second: u32) -> Visits {
        let one = Duration::from_secs(1) / per_second.max(1);
        let full = one.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX).max(1));
        Visits { one, full, accounts: Mutex::default() }
    }

    fn accounts(&self) -> MutexGuard<'_, BTreeMap<Origin, Time>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pays for one more connection of an origin.
    pub(crate) fn begin(&self, origin: Origin, now: Time) -> Turn {
        let mut accounts = self.accounts();
        let full_at = accounts.get(&origin).copied().unwrap_or_default().max(now) + self.one;
        let wait = full_at.since(now).saturating_sub(self.full);
        if wait > self.one * WAITING {
            return Turn::Never;
        }
        if accounts.len() >= KEPT {
            accounts.retain(|_, full_at| *full_at > now);
        }
        accounts.insert(origin, full_at);
        if wait.is_zero() { Turn::Now } else { Turn::After(wait) }
    }

    /// Returns the payment of a connection that came to something.
    pub(crate) fn was_worth(&self, origin: Origin) {
        if let Some(full_at) = self.accounts().get_mut(&origin) {
            *full_at = Time(full_at.as_nanos().saturating_sub(self.one.as_nanos() as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Origin = Origin::User(1);
    const B: Origin = Origin::User(2);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_served_at_once_what_follows_waits_and_what_exceeds_that_is_closed() {
        let (visits, now) = (Visits::new(10, 4), Time(1_000_000_000));
        for _ in 0..10 {
            assert_eq!(visits.begin(A, now), Turn::Now);
        }
        for n in 1..=WAITING {
            assert_eq!(visits.begin(A, now), Turn::After(SECOND / 4 * n));
        }
        assert_eq!(visits.begin(A, now), Turn::Never);
        assert_eq!(visits.begin(B, now), Turn::Now, "another origin's account is its own");
        // A quarter of a second for each of them, and one for the next.
        let later = now + SECOND / 4 * WAITING;
        assert_eq!(visits.begin(A, later), Turn::After(SECOND / 4));
        assert_eq!(visits.begin(A, later + SECOND), Turn::Now);
    }

    #[test]
    fn connections_that_come_to_something_cost_nothing() {
        let (visits, now) = (Visits::new(10, 4), Time(1_000_000_000));
        for _ in 0..1000 {
            assert_eq!(visits.begin(A, now), Turn::Now);
            visits.was_worth(A);
        }
        visits.was_worth(B);
    }

    #[test]
    fn accounts_that_are_full_again_are_forgotten_and_others_are_not() {
        let (visits, now) = (Visits::new(1, 1), Time(1_000_000_000));
        for user in 0..2 * KEPT as u32 {
            assert_eq!(visits.begin(Origin::User(user), now), Turn::Now);
        }
        assert_eq!(visits.accounts().len(), 2 * KEPT, "none may be forgotten yet");
        assert_eq!(visits.begin(Origin::Unknown, now + 2 * SECOND), Turn::Now);
        assert_eq!(visits.accounts().len(), 1);
    }
}
