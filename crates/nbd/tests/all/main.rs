//! The NBD server, as its clients and its owner see it. One binary for the tests of the crate: it links once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bdevs;
mod client;
mod connections;
mod departures;
mod encrypted;
mod handshake;
mod hostile;
mod programs;
mod requests;
mod simulated;
mod support;
mod system_calls;
