//! Tells a user's second request to stop from another signal of the first.

use std::time::Duration;

use crate::Time;

/// How far apart signals of one request may be. `timeout` sends two at once: to its child, and to the child's group.
const TOGETHER: Duration = Duration::from_millis(100);

/// The requests to stop that have come by signals.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopRequests {
    first: Option<Time>,
}

/// What a signal that asks for a stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopRequest {
    /// The first request.
    First,
    /// Another signal of the first request.
    Same,
    /// A second request, of a user who does not want to wait.
    Again,
}

impl StopRequests {
    /// Counts a signal that came at that time.
    pub fn came(&mut self, now: Time) -> StopRequest {
        match self.first {
            None => {
                self.first = Some(now);
                StopRequest::First
            }
            Some(first) if now - first < TOGETHER => StopRequest::Same,
            Some(_) => StopRequest::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_come_together_are_one_request_and_a_later_one_is_another() {
        use StopRequest::{Again, First, Same};
        let at = |milliseconds: u64| Time::default() + Duration::from_millis(milliseconds);
        for (times, meanings) in [
            (&[5][..], &[First][..]),
            (&[5, 5], &[First, Same]),
            (&[5, 5, 104], &[First, Same, Same]),
            (&[5, 105], &[First, Again]),
            (&[5, 60, 110, 111], &[First, Same, Again, Again]),
            (&[0, 60_000], &[First, Again]),
        ] {
            let mut requests = StopRequests::default();
            let found: Vec<StopRequest> = times.iter().map(|time| requests.came(at(*time))).collect();
            assert_eq!(found, meanings, "{times:?}");
        }
    }
}
