//! What a thread calls: its tasks and pollers, and the places where answers to its calls arrive.
//!
//! Owned by the thread's running half, on its reactor. Nothing here knows threads or reactors: see
//! [`host::Host`].

pub(crate) mod calls;
pub(crate) mod host;
pub(crate) mod poller_cell;
pub(crate) mod pollers;
pub(crate) mod replies;
pub(crate) mod tasks;
pub(crate) mod waker;
