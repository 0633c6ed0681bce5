//! Every effect of the program goes through here: time, randomness, files, sockets, sleeping and waking.
//!
//! One [`Driver`] belongs to one reactor (or one hand-stepped thread runner) and never leaves its OS
//! thread. Three implementations: io_uring, epoll with worker threads for files, and the simulation.

mod driver;
mod op;
mod time;

pub use driver::{Driver, Unpark, Unparker};
pub use op::{Completion, Op, Output, Token};
pub use time::Time;
