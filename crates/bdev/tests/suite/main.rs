//! What the registry, descriptors, claims and modules promise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod claims;
mod examining;
mod files;
mod names;
mod races;
mod removal;
mod support;
