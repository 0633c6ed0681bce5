//! A file or block device of the operating system, or a disk of the simulated world: whatever the
//! thread's engine opens under a path.
//!
//! All threads share the open file; each has a lane that hands requests to its own engine. Transfers bypass
//! the page cache where the file system allows. A completed write has reached the kernel, not the medium:
//! only a flush (or a write with force unit access, which flushes) makes it durable. Requests in flight at
//! once may take effect in any order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::devices::bounce::Bounce;
use crate::devices::faults::Faults;
use crate::devices::file_lane::FileLane;
use crate::{
    Claim, CurrentGeometry, Device, DeviceState, Geometry, GeometryError, Lane, LaneCx, OpenError, Operation,
};
use spindle_engine::{Direct, FileInfo, Op, OpenOptions, Output};

/// Requests that one lane has in the engine at a time; further ones wait in the lane table.
const DEPTH: u32 = 256;

/// Default size, per file, of the memory for transfers whose buffers are not aligned.
const BOUNCE_BYTES: usize = 64 << 20;

/// How to open a [`File`]. Default: read-only, locked, bypassing the page cache where possible.
#[derive(Clone, Debug)]
pub struct FileOptions {
    path: PathBuf,
    name: Option<String>,
    writable: bool,
    direct: Direct,
    create: Option<u64>,
    locked: bool,
    block_size: Option<u32>,
    bounce_bytes: usize,
}

impl FileOptions {
    /// Opens `path` for reading.
    pub fn new(path: impl Into<PathBuf>) -> FileOptions {
        FileOptions {
            path: path.into(),
            name: None,
            writable: false,
            direct: Direct::Wanted,
            create: None,
            locked: true,
            block_size: None,
            bounce_bytes: BOUNCE_BYTES,
        }
    }

    /// Opens for reading and writing.
    #[must_use]
    pub fn writable(self, yes: bool) -> FileOptions {
        FileOptions { writable: yes, ..self }
    }

    /// Sets the device's name; the default is its path.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> FileOptions {
        FileOptions { name: Some(name.into()), ..self }
    }

    /// Creates a sparse file of `bytes` bytes if none exists; an existing one keeps its size.
    #[must_use]
    pub fn create(self, bytes: u64) -> FileOptions {
        FileOptions { create: Some(bytes), ..self }
    }

    /// Chooses whether to bypass the page cache.
    #[must_use]
    pub fn direct(self, direct: Direct) -> FileOptions {
        FileOptions { direct, ..self }
    }

    /// Chooses the block size; the default is the device's own, or 512 bytes for a regular file.
    #[must_use]
    pub fn block_size(self, bytes: u32) -> FileOptions {
        FileOptions { block_size: Some(bytes), ..self }
    }

    /// Bounds the memory for transfers whose buffers are not aligned for direct transfers; default 64 MiB per
    /// file. Larger transfers go in steps, and transfers that find no memory wait.
    #[must_use]
    pub fn bounce_bytes(self, bytes: usize) -> FileOptions {
        FileOptions { bounce_bytes: bytes, ..self }
    }

    /// Takes no lock: for reading a file that another opener may be changing.
    #[must_use]
    pub fn unlocked(self) -> FileOptions {
        FileOptions { locked: false, ..self }
    }

    fn name_or_path(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.path.display().to_string())
    }

    fn engine(&self, direct: Direct) -> OpenOptions {
        let options = OpenOptions::new(&self.path).writable(self.writable).direct(direct).locked(self.locked);
        match self.create {
            Some(bytes) => options.create(bytes),
            None => options,
        }
    }
}

/// An open file as a block device.
#[derive(Debug)]
pub struct File {
    name: String,
    geometry: CurrentGeometry,
    pub(crate) file: spindle_engine::File,
    pub(crate) bounce: Bounce,
    claim: Claim,
    state: DeviceState,
    pub(crate) faults: Faults,
}

impl File {
    /// Opens a file. Needs the current Spindle thread's engine. A dropped future leaves nothing open.
    ///
    /// A writer excludes all other openers, readers exclude writers (an open-file-description lock), unless
    /// [`unlocked`](FileOptions::unlocked). Bytes beyond the last whole block are not used.
    ///
    /// # Errors
    /// [`Busy`](OpenError::Busy) if another opener's lock is in the way, [`Geometry`](OpenError::Geometry) if
    /// the file is smaller than a block or needs larger blocks than asked for, and errors of the system.
    pub async fn open(options: FileOptions) -> Result<Arc<File>, OpenError> {
        let name = options.name_or_path();
        let mut file = open(&name, options.engine(options.direct)).await?;
        if let Some(wanted) = options.block_size
            && wanted < file.info().logical_block
            && !file.info().block_device
            && options.direct == Direct::Wanted
        {
            // Only the page cache allows blocks this small.
            drop(file);
            file = open(&name, options.engine(Direct::Off)).await?;
        }
        let shaped = geometry(file.info(), options.block_size)
            .and_then(|geometry| Ok((geometry, Bounce::new(options.bounce_bytes, geometry.block_size())?)));
        let (geometry, bounce) = match shaped {
            Ok(shaped) => shaped,
            Err(source) => return Err(OpenError::Geometry { device: name, source }),
        };
        Ok(Arc::new(File {
            name,
            geometry: geometry.into(),
            file,
            bounce,
            claim: Claim::default(),
            state: DeviceState::new(),
            faults: Faults::default(),
        }))
    }

    /// True if the system can tell where the file has data.
    pub(crate) fn seeks(&self) -> bool {
        !self.file.info().block_device
    }

    pub(crate) fn held_state(&self) -> &DeviceState {
        &self.state
    }

    /// Reads the file's size again; a new size becomes that of the device, and the lanes are told. Needs the
    /// current Spindle thread's engine. Resolves when all lanes know; a dropped future leaves the old size or
    /// the new one.
    ///
    /// Shrinking does not wait for requests: those beyond the new end fail from now on.
    ///
    /// # Errors
    /// The system cannot tell the size, or it is smaller than a block; then nothing has changed.
    pub async fn rescan(&self) -> Result<(), OpenError> {
        let bytes = self.current_size().await?;
        let before = self.geometry.get();
        let blocks = bytes >> before.block_shift();
        if blocks == before.blocks() {
            return Ok(());
        }
        let changed = self.geometry.set_blocks(blocks);
        changed.map_err(|source| OpenError::Geometry { device: self.name.clone(), source })?;
        self.state.resized().await;
        Ok(())
    }

    /// The file's size in bytes according to the system; changes nothing. Needs the current Spindle thread's
    /// engine.
    ///
    /// # Errors
    /// The system cannot tell the size.
    pub async fn current_size(&self) -> Result<u64, OpenError> {
        let (result, _op) = spindle_reactor::op(Op::Inspect { file: self.file.clone() }).await;
        let device = || self.name.clone();
        match result {
            Ok(Output::Info(info)) => Ok(info.size),
            Ok(other) => Err(unexpected(device(), &other)),
            Err(source) => Err(OpenError::System { device: device(), source }),
        }
    }

    /// What the engine found when it opened the file.
    pub fn info(&self) -> &FileInfo {
        self.file.info()
    }
}

async fn open(name: &str, options: OpenOptions) -> Result<spindle_engine::File, OpenError> {
    let device = name.to_owned();
    let (result, _op) = spindle_reactor::op(Op::Open { options: Box::new(options) }).await;
    match result {
        Ok(Output::File(file)) => Ok(file),
        Ok(other) => Err(unexpected(device, &other)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(OpenError::Busy { device, holder: error.to_string() })
        }
        Err(source) => Err(OpenError::System { device, source }),
    }
}

fn unexpected(device: String, output: &Output) -> OpenError {
    OpenError::System { device, source: io::Error::other(format!("an operation that answered {output:?}")) }
}

fn geometry(info: &FileInfo, wanted: Option<u32>) -> Result<Geometry, GeometryError> {
    // Through the page cache a regular file has no block size.
    let needed = if info.direct || info.block_device { info.logical_block.max(512) } else { 512 };
    let block_size = wanted.unwrap_or(needed);
    if block_size < needed {
        return Err(GeometryError::BlockTooSmall { wanted: block_size, needed });
    }
    let shape = Geometry::new(block_size, info.size.checked_div(u64::from(block_size)).unwrap_or(0))?;
    // A disk replaces a whole sector of its medium; a file system makes no such promise.
    let unit = if info.block_device { info.physical_block.max(block_size) } else { block_size };
    Ok(shape
        .with_atomic_unit(unit)?
        .with_volatile_cache(true)
        .with_unmap_reads_zero(info.discard_reads_zero)
        .with_writable(info.writable)
        .with_depth(DEPTH))
}

impl Device for File {
    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }

    fn supports(&self, operation: Operation) -> bool {
        use Operation::{Flush, Read, SeekData, SeekHole, Unmap, Write, WriteZeroes};
        match operation {
            Read | Write | WriteZeroes | Unmap | Flush => true,
            SeekData | SeekHole => self.seeks(),
            _ => false,
        }
    }

    fn claim(&self) -> Option<&Claim> {
        Some(&self.claim)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(FileLane::new(self, cx)))
    }
}
