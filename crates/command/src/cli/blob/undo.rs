//! `spindle blob undo`: takes a repair back.

use super::mending;
use crate::cli::failure::{Failure, shown};
use crate::cli::output::note;
use crate::cli::text::count;
use std::path::PathBuf;

/// Arguments of `undo`.
#[derive(clap::Args)]
pub(crate) struct Undo {
    /// Image file or block device that was repaired
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The repair's undo file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Undo even if the image was changed since; those changes may be lost
    #[arg(long)]
    force: bool,
}

impl Undo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let blocks = mending::undo(self.image.clone(), &self.file, self.force)?;
        let (image, blocks) = (shown(&self.image), count(blocks as u64, "block"));
        note(&format!("{image} is as before the repair: {blocks} taken back"));
        Ok(())
    }
}
