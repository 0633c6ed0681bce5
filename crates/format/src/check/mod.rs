//! Everything that is wrong with a loaded store, as a typed list.
//!
//! Every finding says which object it is about and where (its `Display`), and what that means for the data
//! ([`Finding::meaning`]). Nothing is found on a healthy store. A read-only load has already worked around
//! what can be worked around; [`Finding::Pending`] lists what a writing load would put right.

mod compare;

use crate::error::{FormatError, Place};
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::mask::MaskKind;
use crate::repair::RepairReason;
use crate::store::{HalfDone, Store};
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Nothing is lost; the next writing load puts it right.
    Pending,
    /// Space is wasted or a hint is wrong; all data can be read.
    Minor,
    /// Data cannot be read, or will be lost if the store is written.
    Damage,
}

/// A run of numbers: first and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first.
    pub first: u32,
    /// How many.
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

/// One thing that is wrong.
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
    },
    /// A mask of a store that says it is clean cannot be used.
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
        /// The blobs, each with the cluster of the blob whose entry it is.
        owners: Vec<(BlobId, u64)>,
    },
    /// The mask says that clusters are in use, but nothing uses them.
    LeakedClusters {
        /// Which.
        clusters: Vec<Span>,
    },
    /// The mask says that metadata pages are in use, but nothing uses them.
    LeakedPages {
        /// Which.
        pages: Vec<Span>,
    },
    /// A mask says "free" of something in use.
    UnmarkedInMask {
        /// The mask.
        kind: MaskKind,
        /// Byte of the image where the mask begins.
        offset: u64,
        /// The bits that are missing.
        bits: Vec<Span>,
    },
    /// A metadata page in use is the root of a blob, but the mask of blob ids does not have it.
    UnlistedBlob {
        /// The blob.
        blob: BlobId,
    },
    /// A blob is a clone of a blob that is missing or damaged.
    OrphanedClone {
        /// The clone.
        blob: BlobId,
        /// Its parent.
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
    /// A blob's flags say another kind of cluster map than it has.
    WrongMapFlag {
        /// The blob.
        blob: BlobId,
        /// Whether it has an extent table.
        table: bool,
    },
    /// A descriptor of a type this version does not know.
    UnknownDescriptor {
        /// The blob.
        blob: BlobId,
        /// Where.
        place: Place,
        /// Its type.
        kind: u8,
    },
    /// A snapshot operation was cut off and cannot be resolved without guessing.
    HalfDone(HalfDone),
    /// Something was cut off; a writing load puts it right.
    Pending(RepairReason),
}

/// Looks for everything that is wrong with a store. Nothing is found on a healthy one.
pub fn check(store: &Store) -> Vec<Finding> {
    compare::findings(store)
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Finding::DamagedBlob { .. }
            | Finding::UnreadablePage { .. }
            | Finding::SharedCluster { .. }
            | Finding::OrphanedClone { .. }
            | Finding::ParentCircle { .. }
            | Finding::UnlistedBlob { .. }
            | Finding::HalfDone(_)
            | Finding::UnmarkedInMask { .. } => Severity::Damage,
            Finding::BadMask(_)
            | Finding::LeakedClusters { .. }
            | Finding::LeakedPages { .. }
            | Finding::WritableParent { .. }
            | Finding::MissingSuperBlob { .. }
            | Finding::WrongMapFlag { .. }
            | Finding::UnknownDescriptor { .. } => Severity::Minor,
            Finding::Pending(_) => Severity::Pending,
        }
    }

    /// What it means, in a sentence.
    pub fn meaning(&self) -> &'static str {
        match self {
            Finding::DamagedBlob { .. } => {
                "this blob's data cannot be reached; the other blobs are not affected"
            }
            Finding::BadMask(_) => "what is in use was found by reading all metadata instead",
            Finding::UnreadablePage { .. } => "if a blob has its root there, the blob cannot be seen",
            Finding::SharedCluster { .. } => {
                "a write to or a deletion of one owner changes the data of the other; nothing is allocated or \
                 freed until this is resolved"
            }
            Finding::LeakedClusters { .. } => "this space cannot be used until the store is recovered",
            Finding::LeakedPages { .. } => "these metadata pages cannot be used until the store is recovered",
            Finding::UnmarkedInMask { .. } => {
                "a program that trusts the mask would give out again what is in use; SPDK refuses to open the \
                 blobs concerned"
            }
            Finding::UnlistedBlob { .. } => "programs that trust the mask do not see this blob",
            Finding::OrphanedClone { .. } => "what the clone does not hold itself cannot be read",
            Finding::ParentCircle { .. } => "what none of these blobs holds itself cannot be read",
            Finding::WritableParent { .. } => "a write to the parent would change what its clones read",
            Finding::MissingSuperBlob { .. } => "programs that begin with the super blob (lvolstores) fail",
            Finding::WrongMapFlag { .. } => {
                "readers go by the map itself; older programs may refuse the blob"
            }
            Finding::UnknownDescriptor { .. } => {
                "it is kept out of sight; SPDK refuses to recover a dirty store that has one"
            }
            Finding::HalfDone(_) => "both blobs are left as they are",
            Finding::Pending(_) => "nothing is lost; the next load that may write does it",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::DamagedBlob { blob, name, errors } => {
                write!(f, "blob {blob}")?;
                name.iter().try_for_each(|name| write!(f, " ({name})"))?;
                write!(f, " is damaged")?;
                errors.iter().try_for_each(|error| write!(f, "; {error}"))
            }
            Finding::BadMask(error) => write!(f, "{error}"),
            Finding::UnreadablePage { page, offset } => {
                write!(f, "metadata page {page} at byte {offset} could not be read from the device")
            }
            Finding::SharedCluster { cluster, offset, owners } => {
                write!(f, "cluster {cluster} at byte {offset} has {} owners:", owners.len())?;
                owners.iter().try_for_each(|(blob, index)| write!(f, " blob {blob} as its cluster {index};"))
            }
            Finding::LeakedClusters { clusters } => write!(f, "leaked clusters: {}", List(clusters)),
            Finding::LeakedPages { pages } => write!(f, "leaked metadata pages: {}", List(pages)),
            Finding::UnmarkedInMask { kind, offset, bits } => {
                write!(f, "{kind} mask at byte {offset} lacks what is in use: {}", List(bits))
            }
            Finding::UnlistedBlob { blob } => write!(f, "blob {blob} is missing in the mask of blob ids"),
            Finding::OrphanedClone { blob, parent } => {
                write!(f, "blob {blob} is a clone of {parent}, which is missing or damaged")
            }
            Finding::ParentCircle { blob } => write!(f, "the parents of blob {blob} form a circle"),
            Finding::WritableParent { blob, clones } => {
                write!(f, "blob {blob} has {} clones but is not read-only", clones.len())
            }
            Finding::MissingSuperBlob { blob } => {
                write!(f, "super block at byte 0: the super blob {blob} is missing or damaged")
            }
            Finding::WrongMapFlag { blob, table } => {
                let (has, says) =
                    if *table { ("an extent table", "none") } else { ("none", "an extent table") };
                write!(f, "blob {blob} has {has}, but its flags say {says}")
            }
            Finding::UnknownDescriptor { blob, place, kind } => {
                write!(f, "blob {blob}: {place}: unknown type {kind}")
            }
            Finding::HalfDone(HalfDone { snapshot, removal, other, why }) => {
                let what = if *removal { "deleting" } else { "making" };
                write!(f, "{what} snapshot {snapshot} (blob {other}) was cut off: {why}")
            }
            Finding::Pending(reason) => write!(f, "to do: {reason}"),
        }
    }
}

struct List<'a>(&'a [Span]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, span) in self.0.iter().enumerate() {
            write!(f, "{}{span}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
