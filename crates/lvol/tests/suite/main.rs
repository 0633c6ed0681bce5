//! What stores and volumes promise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod bases;
mod copying;
mod degraded;
mod deletion;
mod extents;
mod images;
mod lives;
mod names;
mod parents;
mod races;
mod removal;
mod stuck;
mod support;
mod unnamed;
