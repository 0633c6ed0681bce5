//! Plain values that every other part of the crate uses. They belong to no thread.

pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod geometry;
pub(crate) mod operation;
