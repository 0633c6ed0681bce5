//! The simulation: one seed, one history.
//!
//! A [`World`] holds the virtual clock, the seeded choices, the running hash of all events, the disks and the
//! sockets. All its drivers are used from one OS thread, one at a time: [`World::next_core`] picks the next
//! one. [`Disk`] is the fault model's disk and works on its own.
//!
//! Not promised: that outside events (another OS thread's unpark, a signal, a foreign descriptor) follow the
//! seed.

pub mod disk;
mod driver;
mod flight;
mod net;
mod storage;
mod trace;
mod world;

pub use disk::{Crash, Disk, DiskOptions, Effect, Fault, Image, Moment, Operation, State, UnmapReads};
pub use driver::SimDriver;
pub use trace::Traced;
pub use world::World;

pub use crate::rng::Rng;
