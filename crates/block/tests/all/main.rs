//! The block layer, as its callers see it. One binary for the tests of the crate: it links once.
//! Beside it stand the tests that need a process of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod abandoned;
mod aborts;
mod bounce;
mod claims;
mod cutting;
mod devices;
mod emulation;
mod events;
mod exit;
mod fairness;
mod files;
mod lanes;
mod lanes_with_channels;
mod layers;
mod limits;
mod lost;
mod modules;
mod orphans;
mod quiesce;
mod requests;
mod stacks;
mod statistics;
mod yielding;
