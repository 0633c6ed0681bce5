//! Options for opening a file or block device, and its properties once it is open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether transfers bypass the page cache (O_DIRECT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// Through the page cache.
    #[default]
    Off,
    /// Bypass it where the file system can, otherwise use it: see [`FileInfo::direct`].
    Wanted,
    /// Bypass it, or fail to open.
    Required,
}

/// What to open and how. Default: read-only, through the page cache, unlocked, not created.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
    pub(crate) direct: Direct,
    pub(crate) create: Option<u64>,
    pub(crate) locked: bool,
    pub(crate) asker: Option<Asker>,
}

/// The asker of an open, which may give it up. A file opened for an asker that has given up is closed, and later
/// opens that find it in use wait for that.
#[derive(Clone, Debug, Default)]
pub struct Asker(Arc<AtomicBool>);

impl Asker {
    /// Says that the file is not needed any more. Calling it again changes nothing.
    pub fn give_up(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn has_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl OpenOptions {
    /// Opens `path` for reading. In simulation a path names a disk of the [`World`](crate::sim::World).
    pub fn new(path: impl Into<PathBuf>) -> OpenOptions {
        OpenOptions {
            path: path.into(),
            writable: false,
            direct: Direct::Off,
            create: None,
            locked: false,
            asker: None,
        }
    }

    /// Opens for reading and writing.
    pub fn writable(mut self, yes: bool) -> Self {
        self.writable = yes;
        self
    }

    /// Chooses whether to bypass the page cache.
    pub fn direct(mut self, direct: Direct) -> Self {
        self.direct = direct;
        self
    }

    /// Creates a sparse file of `size` bytes if none exists; an existing one keeps its size.
    pub fn create(mut self, size: u64) -> Self {
        self.create = Some(size);
        self
    }

    /// Takes a lock held until the last handle drops (an OFD lock on the whole file): exclusive when
    /// writable, shared when read-only. On conflict the open fails with [`std::io::ErrorKind::WouldBlock`]
    /// and names the holder's process id if the kernel tells it. If no process seems to hold the lock, as
    /// just after its holder was killed, the open waits up to 2 s.
    ///
    /// Locks what a block device lies on, too: the file behind a loop device, the disk of a partition, the
    /// parts of a device-mapper or RAID device. `docs/one-writer.md` lists what is locked and what the system
    /// cannot tell.
    ///
    /// Locked or not, of a block device nothing is read from pages that the kernel had before the open; see
    /// [`drop_pages`](crate::drop_pages).
    pub fn locked(mut self, yes: bool) -> Self {
        self.locked = yes;
        self
    }

    /// The path to open.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Size and geometry of an open file, as found when it was opened or last inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes: the file's length or the device's size.
    pub size: u64,
    /// Bytes per logical block of a block device; for a regular file the alignment that direct transfers
    /// need, 512 where none is known.
    pub logical_block: u32,
    /// Bytes that the medium writes at once; at least `logical_block`.
    pub physical_block: u32,
    /// Alignment in memory that direct transfers need; 1 through the page cache.
    pub memory_alignment: u32,
    /// A block device, not a regular file.
    pub block_device: bool,
    /// Transfers bypass the page cache.
    pub direct: bool,
    /// Opened for writing.
    pub writable: bool,
    /// A discarded range reads zero until written again.
    pub discard_reads_zero: bool,
}
