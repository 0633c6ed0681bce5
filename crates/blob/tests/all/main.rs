//! The store, as its callers see it. One binary for the tests of the crate: it links once.
//! Beside it stand the tests that need a process of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod abandoned;
mod chains;
mod channel;
mod circles;
mod deleting;
mod exits;
mod faults;
mod fixtures;
mod lanes;
mod lifecycle;
mod maps;
mod model;
mod opening;
mod operations;
mod replace;
mod second_reader;
mod sharing;
mod space;
mod steps;
mod threads;
mod together;
mod torn;
mod turns;
