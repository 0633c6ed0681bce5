//! A bell: a plain OS thread waits at it until another thread rings, and reads its clock.
//!
//! For the OS thread that watches a runtime: it has no driver and submits nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::os::{Clock, Waker};
use crate::{Time, Unparker};

/// The place where one OS thread waits.
#[derive(Debug)]
pub struct Bell {
    waker: Arc<Waker>,
    clock: Clock,
}

impl Bell {
    /// A bell that has not rung.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell { waker: Arc::new(Waker::new()?), clock: Clock::start() })
    }

    /// Rings from any OS thread, and from a signal handler.
    pub fn unparker(&self) -> Unparker {
        self.waker.clone()
    }

    /// Time since the bell was made.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Waits until the bell rings, or `limit` has passed. A ring before the call is not lost. May return
    /// early.
    pub fn wait(&self, limit: Option<Duration>) {
        if !self.waker.fall_asleep() {
            return;
        }
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let event = self.waker.event();
        let mut fds = [PollFd::new(&event, PollFlags::IN)];
        // An interrupted wait is an early return.
        if let Ok(1..) = poll(&mut fds, limit.as_ref()) {
            self.waker.drain();
        }
        self.waker.wake_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_ends_it_at_once() {
        let bell = Bell::new().unwrap();
        bell.unparker().unpark();
        bell.wait(None);
    }

    #[test]
    fn a_ring_from_another_os_thread_ends_the_wait() {
        let bell = Bell::new().unwrap();
        let unparker = bell.unparker();
        std::thread::scope(|scope| {
            scope.spawn(move || unparker.unpark());
            bell.wait(None);
        });
    }

    #[test]
    fn a_wait_with_a_limit_ends_by_itself() {
        let bell = Bell::new().unwrap();
        bell.wait(Some(Duration::from_millis(1)));
        assert!(bell.now() > Time(0));
    }
}
