//! Handles on threads: to send a message, to call and await, to wait for a task.

pub(crate) mod foreign;
pub(crate) mod join;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod thread;
