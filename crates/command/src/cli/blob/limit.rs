//! The limit of this process on the size of files (`ulimit -f`), compared with an image before anything is written: a
//! write behind it would fail in the middle of a change.

use crate::cli::failure::{Failure, shown};
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// An error if this process may not write all of an image file of so many bytes. Devices have no such limit.
pub(super) fn refuse_limited(image: &Path, bytes: u64) -> Result<(), Failure> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < bytes => Err(Failure::Refused(format!(
            "{} has {bytes} bytes, and this process may write files only up to byte {limit}: raise the limit (ulimit -f)",
            shown(image)
        ))),
        _ => Ok(()),
    }
}
