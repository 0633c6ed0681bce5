//! The parts shared by both kernel engines: the clock, the sleep and wake handshake, worker threads for
//! blocking calls, and the system calls themselves, each wrapped once.

pub(crate) mod clock;
mod closing;
pub(crate) mod files;
mod geometry;
pub(crate) mod iovec;
mod layers;
mod lock;
mod opens;
mod overlap;
pub(crate) mod readiness;
mod reworded;
mod socket_file;
pub(crate) mod sockets;
pub(crate) mod waker;
pub(crate) mod workers;

pub(crate) use clock::Clock;
pub(crate) use closing::{Closes, FileFd, OwnedSocketFile, PendingClose};
pub(crate) use iovec::{IoVecs, receive, send};
pub use lock::{Held, WriteLock, hold, write_lock};
pub(crate) use opens::Opens;
pub use overlap::share_bytes;
pub(crate) use waker::Waker;
pub(crate) use workers::{JobResults, Workers};
