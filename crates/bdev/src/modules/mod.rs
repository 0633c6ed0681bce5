//! The modules whose bdevs are made of memory or files.

pub mod file;
pub mod malloc;
pub mod null;
