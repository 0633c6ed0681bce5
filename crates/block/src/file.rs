//! A file or block device of the operating system, or a disk of the simulated world: whatever the
//! thread's engine opens under a path.
//!
//! The open file is shared by all threads; each has a lane that hands requests to its own engine.
//! Transfers go past the page cache where the file system can. What completes has reached the kernel,
//! not the medium: only a flush (or a write with force unit access, which flushes) makes it durable.
//! Requests in flight at once may take effect in any order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::bounce::Bounce;
use crate::file_lane::FileLane;
use crate::{Claim, CurrentGeometry, Device, DeviceState, Geometry, GeometryError, Lane, LaneCx, OpenError};
use spindle_engine::{Direct, FileInfo, Op, OpenOptions, Output};

/// Requests that one lane has in the engine at a time; more wait in the lane table.
const DEPTH: u32 = 256;

/// Memory for transfers whose buffers are not aligned as direct transfers need, for each file.
const BOUNCE_BYTES: usize = 64 << 20;

/// How to open a [`File`]: read-only, locked, past the page cache where possible, unless said otherwise.
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

    /// Gives the device a name of its own; without, it is called by its path.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> FileOptions {
        FileOptions { name: Some(name.into()), ..self }
    }

    /// Makes a sparse file of `bytes` bytes if there is none; one that exists keeps its size.
    #[must_use]
    pub fn create(self, bytes: u64) -> FileOptions {
        FileOptions { create: Some(bytes), ..self }
    }

    /// Chooses about the page cache.
    #[must_use]
    pub fn direct(self, direct: Direct) -> FileOptions {
        FileOptions { direct, ..self }
    }

    /// Chooses the block size; without, it is the device's own, or 512 bytes for a regular file.
    #[must_use]
    pub fn block_size(self, bytes: u32) -> FileOptions {
        FileOptions { block_size: Some(bytes), ..self }
    }

    /// Bounds the memory for transfers whose buffers are not aligned as direct transfers need: 64 MiB for each
    /// file, unless said otherwise. Larger transfers go in steps, and those that find none wait.
    #[must_use]
    pub fn bounce_bytes(self, bytes: usize) -> FileOptions {
        FileOptions { bounce_bytes: bytes, ..self }
    }

    /// Takes no lock: for who looks at a file that another opener may be changing.
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
}

impl File {
    /// Opens a file. Needs the current Spindle thread's engine. Dropping the future opens nothing that
    /// stays open.
    ///
    /// A writer excludes all other openers, readers exclude writers (an open-file-description lock), unless
    /// [`unlocked`](FileOptions::unlocked). A size that is no whole number of blocks loses its ragged end.
    ///
    /// # Errors
    /// [`Busy`](OpenError::Busy) if another opener's lock is in the way, [`Geometry`](OpenError::Geometry)
    /// if it is smaller than a block or its blocks are larger than those asked for, and what the system
    /// says.
    pub async fn open(options: FileOptions) -> Result<Arc<File>, OpenError> {
        let name = options.name_or_path();
        let mut file = open(&name, options.engine(options.direct)).await?;
        if let Some(wanted) = options.block_size
            && wanted < file.info().logical_block
            && !file.info().block_device
            && options.direct == Direct::Wanted
        {
            // Blocks this small can only be reached through the page cache.
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
        }))
    }

    pub(crate) fn held_state(&self) -> &DeviceState {
        &self.state
    }

    /// Asks the system how large it is now; a new size becomes that of the device, and the lanes are told.
    /// Needs the current Spindle thread's engine. Resolves when all lanes know; dropping the future leaves the
    /// device as it was or as it is now.
    ///
    /// A file that became smaller is not waited for: requests beyond its end fail from now on.
    ///
    /// # Errors
    /// The system cannot say, or it is smaller than a block; nothing has changed then.
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

    /// Asks the system for its size in bytes, and changes nothing. Needs the current Spindle thread's engine.
    ///
    /// # Errors
    /// The system cannot say.
    pub async fn current_size(&self) -> Result<u64, OpenError> {
        let (result, _op) = spindle_reactor::op(Op::Inspect { file: self.file.clone() }).await;
        let device = || self.name.clone();
        match result {
            Ok(Output::Info(info)) => Ok(info.size),
            Ok(other) => Err(unexpected(device(), &other)),
            Err(source) => Err(OpenError::System { device: device(), source }),
        }
    }

    /// What the engine knew of it when it was opened.
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
    // Through the page cache a regular file has no blocks of its own.
    let needed = if info.direct || info.block_device { info.logical_block.max(512) } else { 512 };
    let block_size = wanted.unwrap_or(needed);
    if block_size < needed {
        return Err(GeometryError::BlockTooSmall { wanted: block_size, needed });
    }
    let shape = Geometry::new(block_size, info.size.checked_div(u64::from(block_size)).unwrap_or(0))?;
    // A disk replaces a sector of its medium whole; what a file system makes of a write is its own matter.
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

    fn claim(&self) -> Option<&Claim> {
        Some(&self.claim)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(FileLane::new(self, cx)))
    }
}
