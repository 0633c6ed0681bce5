//! `bdev_aio_*` and `bdev_uring_*`: files and block devices of the operating system.
//!
//! One module with two spellings; which engine does the work is the runtime's choice, not the method's.

use std::path::PathBuf;
use std::sync::Arc;

use spindle_block::{Device, File, FileOptions, OpenError};
use uuid::Uuid;

use crate::{Bdev, BdevError, BdevSpec, Detail, Disk, LocalFuture, Registry};

/// By which methods a file is made a bdev: what it is called, and what is shown of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `bdev_aio_*`.
    Aio,
    /// `bdev_uring_*`.
    Uring,
}

impl Spelling {
    /// The module's name.
    pub fn module(self) -> &'static str {
        match self {
            Spelling::Aio => "aio",
            Spelling::Uring => "uring",
        }
    }

    fn product_name(self) -> &'static str {
        match self {
            Spelling::Aio => "AIO disk",
            Spelling::Uring => "URING bdev",
        }
    }
}

/// What to make.
#[derive(Clone, Debug)]
pub struct FileSpec {
    /// Its name.
    pub name: String,
    /// The file or block device.
    pub filename: PathBuf,
    /// Bytes of a block; those of a block device without. A regular file has none of its own: which were used when
    /// it was written must be said.
    pub block_size: Option<u32>,
    /// Whether it is opened for reading only.
    pub read_only: bool,
    /// As asked for, and shown; unmaps and zeroes are passed on either way.
    pub fallocate: bool,
    /// Its UUID; a random one without.
    pub uuid: Option<Uuid>,
    /// By which methods.
    pub spelling: Spelling,
}

/// Opens a file and registers it. Needs the app thread's engine; what is opened is closed again if it cannot be
/// registered. A writable file is locked: another opener, in this process or another, is refused.
///
/// # Errors
/// The system's (no file, no permission, a directory); a size that is not a whole number of blocks, or blocks that
/// the file cannot be reached in (`EINVAL`); in use by another (`EBUSY`); and as [`Registry::register`].
pub async fn create(registry: &Registry, spec: FileSpec) -> Result<Bdev, BdevError> {
    registry.on_app(async move |registry| create_here(&registry, spec).await).await
}

async fn create_here(registry: &Registry, spec: FileSpec) -> Result<Bdev, BdevError> {
    let what = format!("{} bdev {:?}", spec.spelling.module(), spec.name);
    // Told before the file is opened: a second bdev of one name is no reason to touch a file.
    if registry.get(&spec.name).is_ok() {
        return Err(BdevError::Exists { name: spec.name.clone(), by: spec.name });
    }
    let mut options = FileOptions::new(&spec.filename).writable(!spec.read_only);
    if let Some(bytes) = spec.block_size {
        options = options.block_size(bytes);
    }
    let file = File::open(options).await.map_err(|error| refused(&what, error))?;
    let (info, block_size) = (*file.info(), file.geometry().block_size());
    if spec.block_size.is_none() && !info.block_device {
        let why = "a regular file has no block size of its own; set block_size to 512 or 4096";
        return Err(BdevError::argument(what, why));
    }
    if !info.size.is_multiple_of(u64::from(block_size)) {
        let path = spec.filename.display();
        let why =
            format!("{path} has {} bytes, which are not whole blocks of {block_size}; resize it", info.size);
        return Err(BdevError::argument(what, why));
    }
    let (name, uuid, spelling) = (spec.name.clone(), spec.uuid, spec.spelling);
    let (product_name, module, aliases) = (spelling.product_name(), spelling.module(), Vec::new());
    let disk = Arc::new(FileDisk { file, spec });
    registry.register(BdevSpec { name, aliases, uuid, product_name, module, disk }).await
}

/// Asks the system for the file's size; one that grew, has grown. One that became smaller is taken as it is if
/// nobody has it open.
///
/// # Errors
/// There is none of that name among the bdevs of that spelling (`ENODEV`); it became smaller and is open (`EBUSY`),
/// or is no whole block any more (`EINVAL`); the system's.
pub async fn rescan(registry: &Registry, spelling: Spelling, name: &str) -> Result<(), BdevError> {
    let name = name.to_owned();
    registry.on_app(async move |registry| rescan_here(&registry, spelling, &name).await).await
}

async fn rescan_here(registry: &Registry, spelling: Spelling, name: &str) -> Result<(), BdevError> {
    let bdev = registry.of_module(spelling.module(), name)?;
    bdev.disk().clone().rescan(&bdev).await
}

impl FileDisk {
    async fn look_again(&self, bdev: &Bdev) -> Result<(), BdevError> {
        let (name, before) = (bdev.name(), bdev.geometry());
        let what = format!("rescan of bdev {name:?}");
        let bytes = self.file.current_size().await.map_err(|error| refused(&what, error))?;
        let blocks = bytes >> before.block_shift();
        if blocks < before.blocks() && bdev.descriptors() > 0 {
            let (path, was) = (self.spec.filename.display(), before.blocks());
            let why =
                format!("{path} has shrunk from {was} to {blocks} blocks and is in use; close it first");
            return Err(BdevError::Busy { name: name.to_owned(), why });
        }
        self.file.rescan().await.map_err(|error| refused(&what, error))?;
        if bdev.geometry().blocks() != before.blocks() {
            bdev.resized();
        }
        Ok(())
    }
}

/// What kind of refusal it is: sizes that do not fit are the caller's, all else the system's.
fn refused(what: &str, error: OpenError) -> BdevError {
    match error {
        OpenError::Geometry { device, source } => BdevError::argument(what, format!("{device}: {source}")),
        other => other.into(),
    }
}

struct FileDisk {
    file: Arc<File>,
    spec: FileSpec,
}

impl Disk for FileDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.file.clone()
    }

    fn rescan<'a>(&'a self, bdev: &'a Bdev) -> LocalFuture<'a, Result<(), BdevError>> {
        Box::pin(self.look_again(bdev))
    }

    fn details(&self) -> LocalFuture<'_, Detail> {
        let filename = self.spec.filename.display().to_string().into();
        let details = match self.spec.spelling {
            Spelling::Aio => Detail::Object(vec![
                ("filename", filename),
                ("block_size_override", self.spec.block_size.is_some().into()),
                ("readonly", self.spec.read_only.into()),
                ("fallocate", self.spec.fallocate.into()),
                ("nowait", false.into()),
            ]),
            Spelling::Uring => Detail::Object(vec![("filename", filename)]),
        };
        let details = Detail::Object(vec![(self.spec.spelling.module(), details)]);
        Box::pin(std::future::ready(details))
    }
}
