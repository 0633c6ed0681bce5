//! The simulated world: clock, choices, trace.

use std::time::Duration;

use super::{Disk, SimDriver};
use crate::Time;

/// A simulated world. Cloneable handle; meant for one OS thread at a time.
#[derive(Clone)]
pub struct World(());

/// What can be fed into the trace.
pub trait Traced {
    /// Mixes the value into the hash.
    fn trace(&self, hash: &mut dyn FnMut(u64));
}

impl World {
    /// A world whose every choice follows from `seed`.
    pub fn new(seed: u64) -> World {
        todo!("{seed}")
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        todo!()
    }

    /// The driver of simulated core `core`. A second driver for one core is a mistake and panics.
    pub fn driver(&self, core: usize) -> SimDriver {
        todo!("{core}")
    }

    /// The core whose turn it is, picked by the seed among those not parked. When all are parked the
    /// clock first moves to the next completion or deadline. None: all are parked without a deadline and
    /// nothing is under way, so only an unpark from another OS thread can go on
    /// ([`wait_outside`](Self::wait_outside)). To keep a poller that spins from stopping time, the
    /// clock also moves after many turns in which nobody parked.
    pub fn next_core(&self) -> Option<usize> {
        todo!()
    }

    /// Blocks the OS thread until an [`Unparker`](crate::Unparker) of this world is used from another
    /// OS thread, or `limit` of real time has passed. True if unparked. What comes from outside follows
    /// no seed.
    pub fn wait_outside(&self, limit: Option<Duration>) -> bool {
        todo!("{limit:?}")
    }

    /// The virtual clock: moves only when nobody can run.
    pub fn now(&self) -> Time {
        todo!()
    }

    /// A seeded choice of 0 to `n - 1`; 0 when `n` is 0 or 1.
    pub fn choose(&self, n: usize) -> usize {
        todo!("{n}")
    }

    /// A seeded random number.
    pub fn random(&self) -> u64 {
        todo!()
    }

    /// Feeds something that happened into the trace.
    pub fn event(&self, what: impl Traced) {
        what.trace(&mut |_| todo!());
    }

    /// The hash of everything that happened so far.
    pub fn trace_hash(&self) -> u64 {
        todo!()
    }

    /// Registers `disk` under `path`: [`Op::Open`](crate::Op::Open) of that path finds it. Returns the
    /// disk that was there.
    pub fn add_disk(&self, path: &str, disk: Disk) -> Option<Disk> {
        let _ = (path, disk);
        todo!()
    }

    /// The disk registered under `path`, or made there by an open that creates.
    pub fn disk(&self, path: &str) -> Option<Disk> {
        todo!("{path}")
    }
}

impl Traced for u64 {
    fn trace(&self, hash: &mut dyn FnMut(u64)) {
        hash(*self);
    }
}

impl Traced for &str {
    fn trace(&self, hash: &mut dyn FnMut(u64)) {
        hash(self.len() as u64);
        self.bytes().for_each(|b| hash(u64::from(b)));
    }
}
