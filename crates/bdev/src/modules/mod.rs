//! The modules: bdevs made of memory or files, and bdevs that stand on others.

pub mod delay;
pub mod error;
pub mod file;
pub mod gpt;
mod gpt_table;
pub mod malloc;
pub mod null;
pub mod passthru;
pub mod split;
