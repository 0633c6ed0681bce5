//! An image file or block device, opened for reading only.
//!
//! Only this module of the offline commands reads an image. It uses plain `pread` on the calling OS thread
//! instead of the engine: these commands run without a reactor, nothing else waits, and they must work where
//! no engine can start. Many reads are still in flight at once, because [`ImageFile::read_ahead`] asks the
//! kernel for ranges long before they are read.
//!
//! What the kernel read of a block device before the open is not used: see [`drop_pages`].
//!
//! Not promised: a consistent picture while another program writes to the image.

use crate::cli::failure::Failure;
use crate::cli::file_kind::described;
use rustix::fs::{Advice, SeekFrom as Position, fadvise, seek};
use rustix::io::Errno;
use spindle_engine::drop_pages;
use spindle_format::ByteRange;
use std::fs::{File, Metadata};
use std::io::{Seek, SeekFrom};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The kernel cuts one request for read-ahead to the device's limit, often this much.
const READ_AHEAD_STEP: u64 = 128 << 10;

/// An image file or block device, opened with `O_RDONLY`.
#[derive(Debug)]
pub(crate) struct ImageFile {
    path: PathBuf,
    file: File,
    size: u64,
    identity: Identity,
}

/// The identity of storage, independent of its paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Identity {
    /// A file by its file system and inode.
    File(u64, u64),
    /// A block device by its number; it may have many nodes.
    BlockDevice(u64),
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Identity {
        match metadata.file_type().is_block_device() {
            true => Identity::BlockDevice(metadata.rdev()),
            false => Identity::File(metadata.dev(), metadata.ino()),
        }
    }
}

impl ImageFile {
    /// Opens an image for reading only.
    pub(crate) fn open(path: &Path) -> Result<ImageFile, Failure> {
        // Checked before it is opened: opening a pipe would wait for its other end.
        let metadata = std::fs::metadata(path).map_err(|error| Failure::file(path, "opened", error))?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Failure::NotAnImage { path: path.to_owned(), what: described(kind) });
        }
        let mut file = File::open(path).map_err(|error| Failure::file(path, "opened", error))?;
        drop_pages(&file);
        // A block device reports its size only this way.
        let size = file.seek(SeekFrom::End(0)).map_err(|error| Failure::file(path, "measured", error))?;
        Ok(ImageFile { path: path.to_owned(), file, size, identity: Identity::of(&metadata) })
    }

    /// The path it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the file or device.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// True if it is a regular file, not a block device.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.identity, Identity::File(..))
    }

    /// The identity of its storage.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Fills the buffer from these bytes of the image; bytes beyond its end are an error.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        let failed = |error| Failure::file(&self.path, format!("read at byte {offset}"), error);
        self.file.read_exact_at(bytes, offset).map_err(failed)
    }

    /// The bytes from `offset` on that are a hole of the file and read zero; 0 if the system cannot tell.
    pub(crate) fn hole_at(&self, offset: u64) -> u64 {
        match seek(&self.file, Position::Data(offset)) {
            Ok(data) => data.saturating_sub(offset),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => self.size.saturating_sub(offset),
            Err(_) => 0,
        }
    }

    /// Asks the kernel to begin reading a range. Only advice: if it is ignored, the read takes longer.
    pub(crate) fn read_ahead(&self, range: ByteRange) {
        let end = range.offset.saturating_add(range.len as u64).min(self.size);
        let mut at = range.offset;
        while at < end {
            let step = READ_AHEAD_STEP.min(end - at);
            let _ = fadvise(&self.file, at, NonZeroU64::new(step), Advice::WillNeed);
            at += step;
        }
    }
}
