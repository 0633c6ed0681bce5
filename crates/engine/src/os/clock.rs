//! The monotonic clock, and the seed of a driver's randomness.

use std::time::Instant;

use crate::Time;
use crate::sim::Rng;

/// A clock whose zero is the moment its engine was opened. Copies share the zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the engine: the one place that reads the clock")]
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(&self) -> Time {
        Time(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A generator seeded by the kernel; by the clock where it gives nothing. Not for secrets.
pub(crate) fn random_generator() -> Rng {
    let mut seed = [0u8; 8];
    match rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => Rng::new(u64::from_ne_bytes(seed)),
        _ => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            Rng::new((now.tv_sec as u64).rotate_left(32) ^ now.tv_nsec as u64)
        }
    }
}

/// The core that runs the caller.
pub(crate) fn current_cpu() -> usize {
    rustix::thread::sched_getcpu()
}
