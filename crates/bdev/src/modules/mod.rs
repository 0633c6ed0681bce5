//! The modules that make bdevs of nothing but memory and files.

pub mod file;
pub mod malloc;
pub mod null;
