//! Errors of stores and volumes: which one, why, the remedy, and the errno that SPDK answers with.

use spindle_bdev::{BdevError, Uuid};
use spindle_blob::BlobError;
use spindle_block::IoErrorKind;
use spindle_format::init::InitError;

/// Why an operation on a store or a volume failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum LvolError {
    /// No store has that name or UUID. `ENODEV`.
    #[error("there is no lvolstore {store}; bdev_lvol_get_lvstores lists those there are")]
    NoStore { store: String },
    /// The store is being unloaded or deleted. `ENODEV`.
    #[error(
        "lvolstore {store:?} is being unloaded; wait until bdev_lvol_get_lvstores does not list it, then load it again"
    )]
    Leaving { store: String },
    /// No volume has that name. `ENODEV`.
    #[error("there is no volume {name:?}; bdev_lvol_get_lvols lists those there are")]
    NoLvol { name: String },
    /// The runtime has no lvol module. `ENODEV`.
    #[error("this runtime has no logical volumes; call Lvols::start first")]
    NotStarted,
    /// An invalid name. `EINVAL`.
    #[error("{what} {name:?}: {why}")]
    Name { what: &'static str, name: String, why: String },
    /// An invalid size or option. `EINVAL`.
    #[error("{what}: {why}")]
    Argument { what: String, why: String },
    /// The bdev is too small for the options. `EINVAL`.
    #[error("{what}: {why}")]
    TooSmall { what: String, why: String },
    /// Another store has the name. `EEXIST`.
    #[error("an lvolstore {name:?} is there already, on bdev {base}; choose another name")]
    StoreExists { name: String, base: String },
    /// Another volume of the store, or another bdev, has the name. `EEXIST`.
    #[error("{name:?} is there already in lvolstore {store:?}; choose another name")]
    LvolExists { store: String, name: String },
    /// More than one clone reads through it. `EPERM`.
    #[error("volume {lvol:?} has {clones} clones; delete all but one of them, or inflate them, first")]
    HasClones { lvol: String, clones: usize },
    /// It is read-only, and so cannot be changed. `EPERM`.
    #[error("volume {lvol:?} is read-only and cannot be {what}; do that with a clone of it")]
    ReadOnly { lvol: String, what: &'static str },
    /// Only a writable volume can have a snapshot taken. `EINVAL`.
    #[error("volume {lvol:?} is read-only; no snapshot of it is needed, clone it")]
    SnapshotOfReadOnly { lvol: String },
    /// Only a read-only volume can be cloned. `EINVAL`.
    #[error("volume {lvol:?} can be written; take a snapshot and clone that")]
    NotReadOnly { lvol: String },
    /// It has no parent. `EINVAL`.
    #[error("volume {lvol:?} has no parent, and needs no decoupling from one")]
    NoParent { lvol: String },
    /// It has that parent already. `EEXIST`.
    #[error("volume {lvol:?} reads through {parent:?} already")]
    ParentAlready { lvol: String, parent: String },
    /// Only a read-only volume can be copied. `EPERM`.
    #[error("volume {lvol:?} can be written while it is copied; make it read-only, or copy a snapshot of it")]
    CopyOfWritable { lvol: String },
    /// Something that it reads through is missing or open for writing, so it has no bdev. `ENODEV`.
    #[error("{}", without_external(lvol, *external, held.as_ref()))]
    Degraded { lvol: String, external: Option<Uuid>, held: Option<BdevError> },
    /// Another bdev has its name, so it has no bdev. `ENODEV`.
    #[error(
        "volume {lvol:?} has no bdev: its name {name:?} is taken by {by}; delete or rename that, and the volume \
         gets its bdev"
    )]
    NameTaken { lvol: String, name: String, by: String },
    /// A store that was found is not loaded, as another one has its name. `EEXIST`.
    #[error(
        "lvolstore {name:?} on bdev {base:?} is not loaded: the lvolstore on bdev {other:?} has that name; rename that one \
         with bdev_lvol_rename_lvstore or delete its bdev, then delete bdev {base:?} and create it again"
    )]
    NameClash { name: String, base: String, other: String },
    /// Another operation works on it, or it is open. `EBUSY`.
    #[error("volume {lvol:?}: {why}")]
    Busy { lvol: String, why: String },
    /// The store is not deleted while its volumes are being copied. `EBUSY`.
    #[error(
        "lvolstore {store:?} is not deleted while this is under way: {what}; delete it when that has ended"
    )]
    Copying { store: String, what: String },
    /// An inflate, decouple or shallow copy ended early. `ECANCELED`.
    #[error("{what} was stopped, as its lvolstore is being unloaded: {remedy}")]
    Stopped { what: String, remedy: &'static str },
    /// No room. `ENOSPC`.
    #[error("{what}: {why}")]
    NoSpace { what: String, why: String },
    /// More than a store can manage. `ENOMEM`.
    #[error("{what}: {why}")]
    TooMuch { what: String, why: String },
    /// The bdev holds no store that can be loaded. `EILSEQ`, `EINVAL`.
    #[error("lvolstore on bdev {base:?}: {why}")]
    NotLoadable { base: String, why: String },
    /// The bdev layer refused.
    #[error(transparent)]
    Bdev(#[from] BdevError),
    /// The Blobstore refused.
    #[error("{what}: {source}")]
    Blob { what: String, source: BlobError },
}

impl LvolError {
    /// The Linux errno with which SPDK's interfaces answer (negated there).
    pub fn errno(&self) -> i32 {
        match self {
            LvolError::NoStore { .. }
            | LvolError::Leaving { .. }
            | LvolError::NoLvol { .. }
            | LvolError::NotStarted
            | LvolError::Degraded { .. }
            | LvolError::NameTaken { .. } => 19,
            LvolError::Name { .. }
            | LvolError::Argument { .. }
            | LvolError::TooSmall { .. }
            | LvolError::SnapshotOfReadOnly { .. }
            | LvolError::NotReadOnly { .. }
            | LvolError::NoParent { .. }
            | LvolError::NotLoadable { .. } => 22,
            LvolError::StoreExists { .. }
            | LvolError::NameClash { .. }
            | LvolError::LvolExists { .. }
            | LvolError::ParentAlready { .. } => 17,
            LvolError::HasClones { .. } | LvolError::ReadOnly { .. } | LvolError::CopyOfWritable { .. } => 1,
            LvolError::Busy { .. } | LvolError::Copying { .. } => 16,
            LvolError::Stopped { .. } => 125,
            LvolError::NoSpace { .. } => 28,
            LvolError::TooMuch { .. } => 12,
            LvolError::Bdev(error) => error.errno(),
            LvolError::Blob { source, .. } => errno_of_blob(source),
        }
    }

    /// An error of the Blobstore while `what` was done.
    pub(crate) fn blob(what: impl Into<String>) -> impl FnOnce(BlobError) -> LvolError {
        let what = what.into();
        move |source| LvolError::Blob { what, source }
    }
}

/// Why a volume that reads through a bdev outside of its store has no bdev.
fn without_external(lvol: &str, external: Option<Uuid>, held: Option<&BdevError>) -> String {
    if let Some(held) = held {
        return format!("volume {lvol:?} cannot read its external snapshot: {held}");
    }
    let which = external.map(|uuid| format!(", bdev {uuid}")).unwrap_or_default();
    format!("volume {lvol:?} misses its external snapshot{which}; bring that back, or delete the volume")
}

fn errno_of_blob(error: &BlobError) -> i32 {
    match error {
        BlobError::OutOfSpace { .. } | BlobError::Grow { .. } => 28,
        BlobError::OutOfMetadata { .. }
        | BlobError::Init { source: InitError::TooSmall { .. } | InitError::AllMetadata, .. } => 12,
        BlobError::Busy { .. } | BlobError::BlobsOpen { .. } => 16,
        BlobError::ReadOnly { .. } | BlobError::MetadataReadOnly { .. } => 1,
        BlobError::InUse { .. } => 17,
        BlobError::MissingParent { .. }
        | BlobError::NoSuchBlob { .. }
        | BlobError::Unloaded { .. }
        | BlobError::Closed { .. } => 19,
        BlobError::Refused { .. }
        | BlobError::Option { .. }
        | BlobError::Init { .. }
        | BlobError::OutOfRange { .. }
        | BlobError::Unaligned { .. }
        | BlobError::Xattr { .. } => 22,
        BlobError::Load { .. } | BlobError::Damaged { .. } => 84,
        BlobError::Io(error) => match error.kind {
            IoErrorKind::NoSpace => 28,
            IoErrorKind::Quota => 122,
            IoErrorKind::FileTooLarge => 27,
            IoErrorKind::Removed => 19,
            _ => 5,
        },
        _ => 5,
    }
}
