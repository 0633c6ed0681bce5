//! What the block layer does for all devices: events and gates, counting, statistics and limits, aborts.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../common/mod.rs"]
mod common;
mod events;
mod layers;
mod quiesce;
