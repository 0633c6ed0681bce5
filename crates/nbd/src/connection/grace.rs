//! The times that a connection has when it is told to end: the client, to read the last replies; the device, to end
//! requests.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use spindle_reactor::{Sleep, Time, now, sleep};

/// Runs only while it is waited for: a client that reads is not closed for a device that takes its time.
pub(super) struct Grace {
    left: Duration,
    running: Option<(Time, Pin<Box<Sleep>>)>,
}

impl Grace {
    pub(super) fn new(span: Duration) -> Grace {
        Grace { left: span, running: None }
    }

    /// Lets the time run or stand still; true once it is over. The task is woken then.
    pub(super) fn is_over(&mut self, runs: bool, cx: &mut Context<'_>) -> bool {
        if !runs {
            // Together for all waits: otherwise a client could begin a new send for ever.
            if let Some((since, _)) = self.running.take() {
                self.left = self.left.saturating_sub(now().since(since));
            }
            return false;
        }
        let left = self.left;
        let (_, end) = self.running.get_or_insert_with(|| (now(), Box::pin(sleep(left))));
        end.as_mut().poll(cx).is_ready()
    }
}
