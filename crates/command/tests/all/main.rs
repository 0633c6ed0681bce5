//! The command as its users and their scripts have it: the real binary.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod cli_blob;
mod daemon;
mod golden;
mod perf;
mod python_reader;

use std::path::{Path, PathBuf};

/// The folder of the workspace: fixtures, pages and the second reader are there.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
