//! Threads, messages, tasks, pollers and channels, as their callers see them. One binary for the tests of the crate: it links once.
//! Beside it stand the tests that need a process of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ends;
mod fairness;
mod idle;
mod io_device;
mod join;
mod lock;
mod panics;
mod regressions;
mod reports;
mod rules;
mod runtime;
mod stress;
