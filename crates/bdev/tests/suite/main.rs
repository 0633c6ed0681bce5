//! What the registry, descriptors, claims and modules promise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod claims;
mod conforming;
mod delaying;
mod examining;
mod files;
mod injecting;
mod kept;
mod limits;
mod loads;
mod mirror;
mod mirrors;
mod names;
mod partitions;
mod races;
mod removal;
mod silent;
mod stacks;
mod support;
mod teardown;
mod virtuals;
