//! The monotonic clock, and the seed of a driver's randomness.

use rustix::time::{ClockId, clock_gettime};

use crate::Time;
use crate::rng::Rng;

/// A clock whose zero is the moment its engine was opened. Copies share the zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    zero: u64,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { zero: monotonic() }
    }

    #[inline]
    pub(crate) fn now(&self) -> Time {
        Time(monotonic() - self.zero)
    }
}

/// The kernel's monotonic clock, in nanoseconds. Read every turn: the standard library's `Instant` would
/// take half as long again for its checks and conversions.
#[inline]
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A generator seeded by the kernel, or by the clock if the kernel gives nothing. Not for secrets.
pub(crate) fn random_generator() -> Rng {
    let mut seed = [0u8; 8];
    match rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => Rng::new(u64::from_ne_bytes(seed)),
        _ => Rng::new(monotonic().rotate_left(32)),
    }
}

/// The core that runs the caller.
pub(crate) fn current_cpu() -> usize {
    rustix::thread::sched_getcpu()
}
