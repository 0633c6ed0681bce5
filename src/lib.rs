//! Spindle, a storage kit on SPDK's model: the one crate a program depends on.
//!
//! A facade: it re-exports the crates of the house and holds nothing of its own. What each part is, who owns
//! it and on which thread it lives is said there.
#![forbid(unsafe_code)]

pub use spindle_format as format;
