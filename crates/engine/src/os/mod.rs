//! The parts shared by both kernel engines: the clock, the sleep and wake handshake, worker threads for
//! blocking calls, and the system calls themselves, each wrapped once.

pub(crate) mod clock;
pub(crate) mod files;
mod geometry;
pub(crate) mod iovec;
mod opens;
pub(crate) mod readiness;
pub(crate) mod sockets;
pub(crate) mod waker;
pub(crate) mod workers;

pub(crate) use clock::Clock;
pub(crate) use iovec::{IoVecs, receive, send};
pub(crate) use opens::Opens;
pub(crate) use waker::Waker;
pub(crate) use workers::{JobResults, Workers};
