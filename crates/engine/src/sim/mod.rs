//! The simulation: one seed, one history.
//!
//! A [`World`] holds the virtual clock, the seeded choices, the running hash of everything that
//! happened, the disks and the sockets. All its drivers are used from one OS thread, one at a time:
//! [`World::next_core`] picks whose turn it is. [`Disk`] is the fault model's disk and works by itself.

pub mod disk;
mod driver;
mod world;

pub use disk::{Crash, Disk, DiskOptions, Effect, Fault, Image, Moment, Operation, State, UnmapReads};
pub use driver::SimDriver;
pub use world::{Traced, World};

/// A handle's tie to an object of a world.
#[derive(Debug)]
pub(crate) struct SimHandle;
