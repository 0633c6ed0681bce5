//! The fault model's disk: a disk with a volatile write cache that does the worst its users must expect.
//!
//! A [`Disk`] holds a durable [`Image`] and, on top of it, the ordered log of writes not yet flushed.
//! Reads see the newest data; a flush makes the log durable; a crash keeps any part of the log, in any
//! order, torn at the atomic unit ([`State::crash`]). Images share their pages, so a snapshot costs the
//! same at every size. Usable alone: without an engine or a world, on any OS thread.

mod device;
mod fault;
mod image;
mod state;

pub use device::{Counters, Disk, DiskOptions, Moment, UnmapReads};
pub(crate) use device::{FlushTicket, InCache};
pub use fault::{Effect, Fault, Operation};
pub use image::Image;
pub use state::{Crash, State};
