//! The daemon's own service code, driven by clients. One binary for the tests of the crate: it links once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
#[path = "../../../nbd/tests/all/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the NBD server, which use more of it")]
mod client;
mod configurations;
mod day;
mod kills;
mod memory_nodes;
mod model;
mod reference;
mod refusals;
mod volumes;
