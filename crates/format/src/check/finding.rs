//! What can be wrong with a store.

use super::cause::Cause;
use super::lvolstore::LvolFault;
use crate::error::{FormatError, Place};
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::mask_kind::MaskKind;
use crate::repair::RepairReason;
use crate::store::HalfDone;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Nothing is lost; the next writing load repairs it.
    Pending,
    /// Space is wasted or a hint is wrong; all data can be read.
    Minor,
    /// Data cannot be read, or will be lost if the store is written.
    Damage,
}

/// A run of numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first.
    pub first: u32,
    /// Its length.
    pub count: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            count => write!(f, "{}-{}", self.first, u64::from(self.first) + u64::from(count) - 1),
        }
    }
}

/// A problem of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// A blob cannot be read.
    DamagedBlob {
        /// The blob.
        blob: BlobId,
        /// Its name, if that could be read.
        name: Option<String>,
        /// What is wrong.
        errors: Vec<FormatError>,
        /// The kind of damage.
        cause: Cause,
    },
    /// The image has lost its end.
    CutShort {
        /// Bytes of the image.
        bytes: u64,
        /// Bytes of its store.
        whole: u64,
        /// Blobs that own clusters after the end, as far as their metadata is there.
        blobs: Vec<BlobId>,
        /// Metadata pages after the end.
        pages: u32,
    },
    /// A mask of a store marked clean cannot be used.
    BadMask(FormatError),
    /// A metadata page that may be the root of a blob cannot be read from the device.
    UnreadablePage {
        /// The page.
        page: PageIdx,
        /// Byte of the image where it begins.
        offset: u64,
    },
    /// More than one place of the blobs' maps names a cluster.
    SharedCluster {
        /// The cluster.
        cluster: ClusterIdx,
        /// Byte of the image where it begins.
        offset: u64,
        /// The blobs, each with the index of the cluster in it.
        owners: Vec<(BlobId, u64)>,
    },
    /// More than one blob's extent table names a metadata page.
    SharedPage {
        /// The page.
        page: PageIdx,
        /// Byte of the image where it begins.
        offset: u64,
        /// The blobs.
        owners: Vec<BlobId>,
    },
    /// An internal xattr without meaning in its place, or unreadable.
    DeadLink {
        /// The blob.
        blob: BlobId,
        /// The xattr.
        xattr: &'static str,
        /// Why.
        why: &'static str,
    },
    /// The mask says that clusters are in use, but nothing uses them.
    LeakedClusters {
        /// The leaked clusters.
        clusters: Vec<Span>,
    },
    /// The mask says that metadata pages are in use, but nothing uses them.
    LeakedPages {
        /// The leaked pages.
        pages: Vec<Span>,
    },
    /// A mask marks something in use as free.
    UnmarkedInMask {
        /// The mask.
        kind: MaskKind,
        /// Byte of the image where the mask begins.
        offset: u64,
        /// The missing bits.
        bits: Vec<Span>,
    },
    /// A metadata page in use is the root of a blob, but the mask of blob ids lacks it.
    UnlistedBlob {
        /// The blob.
        blob: BlobId,
    },
    /// A blob reads through a blob that is missing or damaged.
    OrphanedClone {
        /// The clone, or a clone above it.
        blob: BlobId,
        /// The missing parent of the lowest of them.
        parent: BlobId,
    },
    /// The parents of a blob form a circle.
    ParentCircle {
        /// A blob in or above the circle.
        blob: BlobId,
    },
    /// A blob has clones but can be written.
    WritableParent {
        /// The blob.
        blob: BlobId,
        /// Its clones.
        clones: Vec<BlobId>,
    },
    /// The super block names a super blob that is not there.
    MissingSuperBlob {
        /// The blob.
        blob: BlobId,
    },
    /// A blob's flags name another kind of cluster map than it has.
    WrongMapFlag {
        /// The blob.
        blob: BlobId,
        /// True if it has an extent table.
        table: bool,
    },
    /// A descriptor of an unknown type.
    UnknownDescriptor {
        /// The blob.
        blob: BlobId,
        /// Where.
        place: Place,
        /// Its type.
        kind: u8,
    },
    /// A new blob is being filled by an import, or its import was interrupted.
    UnfinishedImport {
        /// The blob.
        blob: BlobId,
    },
    /// The store claims to be an lvolstore, and SPDK does not open it as one, or not all of it.
    Lvolstore(LvolFault),
    /// A snapshot operation was interrupted and cannot be resolved without guessing.
    HalfDone(HalfDone),
    /// An operation was interrupted; a writing load repairs it.
    Pending(RepairReason),
}
