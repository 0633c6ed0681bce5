//! The medium of a measured store: a disk in memory, or a file created for it and removed afterwards.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spindle::block::{Device, File, FileOptions, Malloc};

use super::Failed;

/// Bytes of a block.
pub const BLOCK: u32 = 4096;

/// The kind of disk.
#[derive(Clone, Debug, Default)]
pub struct Medium {
    /// The file, if it is not memory.
    pub path: Option<PathBuf>,
}

/// A disk to measure on. Dropping it removes the file.
pub struct Disk {
    /// The disk itself.
    pub device: Arc<dyn Device>,
    made: Option<PathBuf>,
}

impl Medium {
    /// Makes a disk of `bytes` bytes that reads zero. Must be called on a Spindle thread.
    ///
    /// # Errors
    /// The file is there already, or cannot be made.
    pub async fn disk(&self, bytes: u64) -> Result<Disk, Failed> {
        let Some(path) = &self.path else {
            let device = Malloc::new("memory disk", BLOCK, bytes / u64::from(BLOCK))?;
            return Ok(Disk { device, made: None });
        };
        make(path).map_err(|error| {
            format!("{} cannot be made to measure on: {error}; name a file that is not there", path.display())
        })?;
        let made = Some(path.clone());
        let options = FileOptions::new(path).writable(true).create(bytes).block_size(BLOCK);
        // Removes the file even if it cannot be opened.
        let mut disk = Disk { device: Malloc::new("none", BLOCK, 1)?, made };
        grow(path, bytes)?;
        disk.device = File::open(options).await?;
        Ok(disk)
    }

    /// True if it is memory.
    pub fn is_memory(&self) -> bool {
        self.path.is_none()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Best effort: an empty file may remain.
        self.made.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
}

fn make(path: &Path) -> io::Result<()> {
    std::fs::File::create_new(path).map(drop)
}

fn grow(path: &Path, bytes: u64) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.set_len(bytes)
}
