//! The on-disk format, against images and damage. One binary for the tests of the crate: it links once.
//! Beside it stand the tests that need a process of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod damage;
mod extents;
mod fixtures;
mod halfdone;
mod odd_stores;
mod spdk_images;
mod steps;
