//! What this process has of the file system for itself: files under a lock with what lies below them, and the paths of
//! sockets. Each is closed or removed by a worker thread.

pub(crate) mod closing;
pub(crate) mod layers;
pub(crate) mod lock;
mod overlap;
pub(crate) mod page_cache;
pub(crate) mod reworded;
pub(crate) mod socket_file;

pub(crate) use closing::{Closes, FileFd, OwnedSocketFile, PendingClose};
pub use lock::{Held, WriteLock, hold, write_lock};
pub use overlap::share_bytes;
pub use page_cache::drop_pages;
