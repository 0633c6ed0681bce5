//! Values that describe reactors, threads, tasks and pollers.
//!
//! Values only: `reactor/describe.rs` and `task` fill them in, and `runtime` asks for them.

pub(crate) mod activity;
pub(crate) mod dump;
pub(crate) mod load;
pub(crate) mod stall;
pub(crate) mod turns;
pub(crate) mod wait;
