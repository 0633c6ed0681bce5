//! Errors of a store or a blob: which object, why, and the remedy.

use std::sync::Arc;

use spindle_block::{IoError, IoErrorKind, OpenError};
use spindle_format::grow::GrowError;
use spindle_format::init::InitError;
use spindle_format::metadata::XattrError;
use spindle_format::{BlobId, LoadError};

/// Why an operation on a store or a blob failed. Stores are named by their devices.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum BlobError {
    /// The device answered with an error.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The device could not be opened on a thread.
    #[error("store {store}: {source}")]
    Open { store: Arc<str>, source: Arc<OpenError> },
    /// The device holds no store that can be loaded.
    #[error("store {store}: {source}")]
    Load { store: Arc<str>, source: LoadError },
    /// A store cannot be made like this.
    #[error("store {store}: {source}")]
    Init { store: Arc<str>, source: InitError },
    /// The device holds something that making a store would destroy.
    #[error("{store} holds {found}; set `force` to overwrite it")]
    InUse { store: Arc<str>, found: &'static str },
    /// The store has more clusters than maps in memory can represent.
    #[error("store {store} has {clusters} clusters, more than 2^31 - 1: make it with larger clusters")]
    TooManyClusters { store: Arc<str>, clusters: u32 },
    /// The store cannot grow.
    #[error("store {store}: {source}")]
    Grow { store: Arc<str>, source: GrowError },
    /// Not enough clusters are free.
    #[error(
        "store {store} is out of space: {} wanted, {free} free; delete or unmap something, or grow the store",
        clusters(*needed)
    )]
    OutOfSpace { store: Arc<str>, needed: u64, free: u64 },
    /// Not enough metadata pages are free; those reserved for shrinking and deleting do not count.
    #[error(
        "store {store} is out of metadata pages: {needed} wanted, {free} free; delete blobs or make a store with more of them"
    )]
    OutOfMetadata { store: Arc<str>, needed: u64, free: u64 },
    /// An earlier metadata write or flush failed: the contents of the disk are unknown.
    #[error(
        "store {store} refuses changes of its metadata since a write or flush failed ({cause}): see to its device, then unload the store and load it again; a daemon does that when its bdev is deleted and created again (bdev_aio_delete, bdev_aio_create for a file), or when it restarts"
    )]
    Poisoned { store: Arc<str>, cause: Arc<str> },
    /// Parts of the metadata could not be read when the store was loaded.
    #[error("store {store} allocates and frees nothing because {why}: run `spindle blob check --repair`")]
    AllocationBlocked { store: Arc<str>, why: Arc<str> },
    /// The store was opened for reading only.
    #[error("store {store} was loaded read-only: load it for writing")]
    StoreReadOnly { store: Arc<str> },
    /// The store was unloaded, or its metadata thread is gone.
    #[error("store {store} is not loaded any more: load it again")]
    Unloaded { store: Arc<str> },
    /// Blobs are still open.
    #[error("store {store} still has {open} blobs open: close them first")]
    BlobsOpen { store: Arc<str>, open: usize },
    /// There is no such blob.
    #[error("blob {blob} is not in the store: list the store for the ids there are")]
    NoSuchBlob { blob: BlobId },
    /// The blob's metadata cannot be read; the rest of the store works.
    #[error("blob {blob} is damaged: {why}: run `spindle blob check`")]
    Damaged { blob: BlobId, why: Arc<str> },
    /// The handle was closed.
    #[error("blob {blob} was closed: open it again")]
    Closed { blob: BlobId },
    /// The blob is in use.
    #[error("blob {blob} is in use: {by}")]
    Busy { blob: BlobId, by: &'static str },
    /// The caller has stopped the operation.
    #[error("work on blob {blob} was stopped; what was copied stays: call it again to continue")]
    Stopped { blob: BlobId },
    /// The blob's data must not be changed.
    #[error("blob {blob} is read-only: write to a clone of it")]
    ReadOnly { blob: BlobId },
    /// The blob names a cluster that another blob names, too: what is written to one would change the other.
    #[error("blob {blob} cannot be written: {}", shared_with(*blob, *other))]
    SharesClusters { blob: BlobId, other: BlobId },
    /// A clone reads through the blob, which is not read-only as a snapshot is: what is written would change the clone.
    #[error(
        "blob {blob} cannot be written: its clone {clone} would change with it; run `spindle blob check --repair`, which makes it read-only, or inflate its clones and load the store again"
    )]
    WritableParent { blob: BlobId, clone: BlobId },
    /// The blob's metadata must not be changed.
    #[error("the metadata of blob {blob} is read-only: change a clone of it")]
    MetadataReadOnly { blob: BlobId },
    /// The range is not inside the blob.
    #[error(
        "{len} bytes at offset {offset} are not inside blob {blob} of {size} bytes: resize it or ask for less"
    )]
    OutOfRange { blob: BlobId, offset: u64, len: u64, size: u64 },
    /// Offset or length is not a multiple of the io unit.
    #[error(
        "{len} bytes at offset {offset} of blob {blob} are not whole io units of {unit} bytes: align offset and length"
    )]
    Unaligned { blob: BlobId, offset: u64, len: u64, unit: u32 },
    /// The operation does not fit this blob.
    #[error("blob {blob}: {why}")]
    Refused { blob: BlobId, why: &'static str },
    /// The blob has no such xattr.
    #[error("blob {blob} has no xattr {name:?}: list its xattrs for those there are")]
    NoSuchXattr { blob: BlobId, name: String },
    /// An xattr cannot be set.
    #[error("blob {blob}: {source}")]
    Xattr { blob: BlobId, source: XattrError },
    /// A blob or device above this one in its chain is missing or damaged.
    #[error(
        "blob {blob} reads through {parent}, which is missing or damaged: restore it or set another parent"
    )]
    MissingParent { blob: BlobId, parent: Arc<str> },
    /// No memory for a buffer as large as a cluster or a block of the device.
    #[error(transparent)]
    Memory(#[from] spindle_mem::OutOfMemory),
    /// An option has an invalid value.
    #[error("{option}: {why}")]
    Option { option: &'static str, why: String },
}

fn clusters(count: u64) -> String {
    if count == 1 { "1 cluster".to_owned() } else { format!("{count} clusters") }
}

fn shared_with(blob: BlobId, other: BlobId) -> String {
    let owns = match other == blob {
        true => format!("its map names a cluster twice, so that {blob} would change in two places"),
        false => format!("blob {other} has clusters of it too and would change with it"),
    };
    format!("{owns}; run `spindle blob check` to see which, copy what is good, and give one of them up")
}

/// ENXIO: a parent that is missing.
const ENXIO: i32 = 6;
/// ENOMEM: out of memory.
const ENOMEM: i32 = 12;
/// EIO: the contents of the disk are unknown.
const EIO: i32 = 5;
/// EUCLEAN: damaged metadata.
const EUCLEAN: i32 = 117;

impl BlobError {
    /// Another operation has this blob to itself.
    pub(crate) fn busy(blob: BlobId) -> BlobError {
        BlobError::Busy { blob, by: "another operation works on it: wait for its end" }
    }

    /// The status of a request that failed for this reason.
    pub(crate) fn kind(&self) -> IoErrorKind {
        match self {
            BlobError::Io(error) => error.kind,
            BlobError::OutOfSpace { .. } | BlobError::OutOfMetadata { .. } => IoErrorKind::NoSpace,
            BlobError::StoreReadOnly { .. }
            | BlobError::ReadOnly { .. }
            | BlobError::SharesClusters { .. }
            | BlobError::WritableParent { .. }
            | BlobError::MetadataReadOnly { .. } => IoErrorKind::ReadOnly,
            BlobError::OutOfRange { .. } => IoErrorKind::OutOfRange,
            BlobError::Unaligned { .. } => IoErrorKind::Unaligned,
            BlobError::Unloaded { .. } | BlobError::Closed { .. } | BlobError::NoSuchBlob { .. } => {
                IoErrorKind::Removed
            }
            BlobError::MissingParent { .. } => IoErrorKind::Device { errno: ENXIO },
            BlobError::Memory(_) => IoErrorKind::Device { errno: ENOMEM },
            BlobError::AllocationBlocked { .. } | BlobError::Damaged { .. } => {
                IoErrorKind::Device { errno: EUCLEAN }
            }
            _ => IoErrorKind::Device { errno: EIO },
        }
    }
}
