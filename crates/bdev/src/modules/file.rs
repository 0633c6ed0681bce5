//! `bdev_aio_*` and `bdev_uring_*`: files and block devices of the operating system.
//!
//! One module with two names; the runtime, not the method, decides which engine does the work.

use std::any::Any;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spindle_block::{Device, File, FileOptions, GeometryError, OpenError};
use uuid::Uuid;

use crate::error::errno;
use crate::{Bdev, BdevError, BdevSpec, Detail, Disk, LocalFuture, Recipe, Registry};

/// The methods by which a file was made a bdev, which determine its product name.
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

/// Parameters of a file bdev.
#[derive(Clone, Debug)]
pub struct FileSpec {
    /// Its name.
    pub name: String,
    /// The file or block device.
    pub filename: PathBuf,
    /// Bytes of a block; default: those of a block device. A regular file has none, so the size
    /// used when it was written must be given.
    pub block_size: Option<u32>,
    /// True if it is opened for reading only.
    pub read_only: bool,
    /// Shown as given; unmaps and zeroes are passed on either way.
    pub fallocate: bool,
    /// Its UUID; default: random.
    pub uuid: Option<Uuid>,
    /// The methods used.
    pub spelling: Spelling,
}

/// Opens a file and registers it. Needs the app thread's engine; the file is closed again if registering
/// fails. A writable file is locked: another opener, in this process or another, is refused.
///
/// # Errors
/// Those of the system (no file, no permission, a directory); a size that is not a whole number of blocks, or
/// blocks too small for the file (`EINVAL`); another opener has it (`EBUSY`); and as [`Registry::register`].
pub async fn create(registry: &Registry, spec: FileSpec) -> Result<Bdev, BdevError> {
    registry.on_app(async move |registry| create_here(&registry, spec).await).await
}

async fn create_here(registry: &Registry, spec: FileSpec) -> Result<Bdev, BdevError> {
    let what = format!("{} bdev {:?}", spec.spelling.module(), spec.name);
    let mut options = FileOptions::new(&spec.filename).writable(!spec.read_only);
    if let Some(bytes) = spec.block_size {
        options = options.block_size(bytes);
    }
    let file = File::open(options).await.map_err(|error| match error {
        OpenError::Busy { .. } => busy(registry, &spec, &what, error),
        _ => refused(&what, error),
    })?;
    let (info, block_size) = (*file.info(), file.geometry().block_size());
    if spec.block_size.is_none() && !info.block_device {
        let why = "a regular file has no block size; set block_size to 512 or 4096";
        return Err(BdevError::argument(what, why));
    }
    if !info.size.is_multiple_of(u64::from(block_size)) {
        let path = spec.filename.display();
        let why =
            format!("{path} has {} bytes, which are not whole blocks of {block_size}; resize it", info.size);
        return Err(BdevError::argument(what, why));
    }
    let (name, uuid, spelling) = (spec.name.clone(), spec.uuid, spec.spelling);
    let disk = Arc::new(FileDisk { file, spec });
    let spec = BdevSpec::new(name, spelling.product_name(), spelling.module(), disk);
    registry.register(spec.with_uuid(uuid)).await
}

/// The refusal of a file that is locked. SPDK, which locks no file, finds that the name is taken.
fn busy(registry: &Registry, spec: &FileSpec, what: &str, error: OpenError) -> BdevError {
    if let Ok(by) = registry.get(&spec.name) {
        return BdevError::Exists { name: spec.name.clone(), by: by.name().to_owned() };
    }
    match of_file(registry, |file| file == spec.filename) {
        Some(by) => {
            let (file, by) = (spec.filename.display(), by.name());
            let why = format!("{file} is in use for bdev {by:?}; use that, or delete it first");
            BdevError::Module { what: what.to_owned(), why, errno: errno::EBUSY }
        }
        None => refused(what, error),
    }
}

/// The bdev that was made of a file, also if it was named by another path to it. For a start: it asks the system about
/// files, which may block.
pub fn made_of(registry: &Registry, filename: &Path) -> Option<Bdev> {
    of_file(registry, |file| is_same(file, filename))
}

/// The first bdev that was made of such a file.
fn of_file(registry: &Registry, is_such: impl Fn(&Path) -> bool) -> Option<Bdev> {
    let is_of_such = |bdev: &Bdev| {
        let disk = (&**bdev.disk() as &dyn Any).downcast_ref::<FileDisk>();
        disk.is_some_and(|disk| is_such(&disk.spec.filename))
    };
    registry.bdevs().into_iter().find(is_of_such)
}

/// True if two paths lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    one == other || file(one).is_some_and(|one| file(other) == Some(one))
}

/// Reads the file's size again, and grows the bdev if it grew. A smaller size is accepted if the bdev is not
/// open.
///
/// # Errors
/// No bdev of that spelling has the name (`ENODEV`); the file became smaller and the bdev is open (`EBUSY`),
/// or it is smaller than a block (`EINVAL`); those of the system.
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
            let why = format!(
                "{path} has shrunk from {was} to {blocks} blocks and is in use for {}; have it closed there first",
                bdev.holders()
            );
            return Err(BdevError::Busy { name: name.to_owned(), why });
        }
        self.file.rescan().await.map_err(|error| refused(&what, error))?;
        if bdev.geometry().blocks() != before.blocks() {
            bdev.resized();
        }
        Ok(())
    }
}

/// Converts a refusal: sizes that do not fit are the caller's mistake, other errors are the system's.
fn refused(what: &str, error: OpenError) -> BdevError {
    match error {
        OpenError::Geometry { device, source: GeometryError::Empty } => {
            let why =
                format!("{device} is too small for a block; make it larger first: truncate -s SIZE {device}");
            BdevError::argument(what, why)
        }
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

    fn recipe(&self, bdev: &Bdev) -> Option<Recipe> {
        let uuid = ("uuid", bdev.uuid().to_string().into());
        let filename = ("filename", self.spec.filename.display().to_string().into());
        let block_size = self.spec.block_size.map(|bytes| ("block_size", bytes.into()));
        let mut params: Vec<(&str, Detail)> = vec![("name", bdev.name().into())];
        params.extend(block_size);
        params.push(filename);
        let method = match self.spec.spelling {
            Spelling::Aio => {
                params.push(("readonly", self.spec.read_only.into()));
                params.push(("fallocate", self.spec.fallocate.into()));
                params.extend([uuid, ("nowait", false.into())]);
                "bdev_aio_create"
            }
            Spelling::Uring => {
                params.push(uuid);
                "bdev_uring_create"
            }
        };
        Some(Recipe { method, params: Detail::Object(params) })
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
