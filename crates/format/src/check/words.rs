//! The findings in words: names, meanings, remedies.

use super::{Finding, Severity, Span};
use crate::mask::MaskKind;
use crate::repair::RepairReason;
use crate::store::HalfDone;
use std::fmt;

impl Finding {
    /// A stable name, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Finding::DamagedBlob { cause, .. } => cause.code(),
            Finding::CutShort { .. } => "cut-short",
            Finding::BadMask(_) => "mask-unusable",
            Finding::UnreadablePage { .. } => "unreadable-page",
            Finding::SharedCluster { .. } => "shared-cluster",
            Finding::SharedPage { .. } => "shared-page",
            Finding::LeakedClusters { .. } => "leaked-clusters",
            Finding::LeakedPages { .. } => "leaked-pages",
            Finding::UnmarkedInMask { kind: MaskKind::UsedPages, .. } => "unmarked-pages",
            Finding::UnmarkedInMask { kind: MaskKind::UsedClusters, .. } => "unmarked-clusters",
            Finding::UnmarkedInMask { kind: MaskKind::UsedBlobIds, .. } | Finding::UnlistedBlob { .. } => {
                "unlisted-blob"
            }
            Finding::OrphanedClone { .. } => "orphaned-clone",
            Finding::ParentCircle { .. } => "parent-circle",
            Finding::WritableParent { .. } => "writable-parent",
            Finding::MissingSuperBlob { .. } => "missing-super-blob",
            Finding::WrongMapFlag { .. } => "map-flag",
            Finding::UnknownDescriptor { .. } => "unknown-descriptor",
            Finding::DeadLink { .. } => "dead-link",
            Finding::UnfinishedImport { .. } => "unfinished-import",
            Finding::Lvolstore(fault) => fault.code(),
            Finding::HalfDone(_) => "unresolved-marker",
            Finding::Pending(reason) => pending_code(reason),
        }
    }

    /// Its severity.
    pub fn severity(&self) -> Severity {
        match self {
            Finding::DamagedBlob { .. }
            | Finding::CutShort { .. }
            | Finding::UnreadablePage { .. }
            | Finding::SharedCluster { .. }
            | Finding::SharedPage { .. }
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
            | Finding::DeadLink { .. }
            | Finding::UnfinishedImport { .. }
            | Finding::UnknownDescriptor { .. } => Severity::Minor,
            Finding::Lvolstore(fault) if fault.is_refused() => Severity::Damage,
            Finding::Lvolstore(_) => Severity::Minor,
            Finding::Pending(_) => Severity::Pending,
        }
    }

    /// Its meaning for the data, in a sentence.
    pub fn meaning(&self) -> &'static str {
        match self {
            Finding::DamagedBlob { .. } => {
                "this blob's data cannot be reached; the other blobs are not affected"
            }
            Finding::CutShort { .. } => {
                "what lay behind the end of the image cannot be read; the store is read only as far as it goes, and \
                 not written to"
            }
            Finding::BadMask(_) => "what is in use was found by reading all metadata instead",
            Finding::UnreadablePage { .. } => "if a blob has its root there, the blob cannot be seen",
            Finding::SharedCluster { .. } => {
                "a write to one owner would change the data of the other, and is refused; nothing is allocated \
                 or freed until this is resolved"
            }
            Finding::SharedPage { .. } => {
                "what one owner allocates in this part of its map would appear in the other; writes to them are \
                 refused, and nothing is allocated or freed until this is resolved"
            }
            Finding::LeakedClusters { .. } => "no blob's data is there; this space cannot be used",
            Finding::LeakedPages { .. } => "no blob's metadata is there; these pages cannot be used",
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
            Finding::UnfinishedImport { .. } => "it holds part of an import, without a name, and takes space",
            Finding::DeadLink { .. } => "no data depends on it; SPDK may stop at it",
            Finding::Lvolstore(fault) => fault.meaning(),
            Finding::HalfDone(_) => {
                "both blobs are left as they are; SPDK may drop one of them when it loads the store"
            }
            Finding::Pending(_) => "nothing is lost; the next load that may write does it",
        }
    }

    /// What a repair does about it, or why it does nothing and the remedy instead.
    pub fn remedy(&self) -> &'static str {
        match self {
            Finding::DamagedBlob { .. } => {
                "not repaired: what the blob holds cannot be told; restore it from a backup, and give it up with \
                 --give-up to free what it holds"
            }
            Finding::CutShort { .. } => {
                "not repaired: restore what was cut off, or make a copy as long as the store (truncate -s), in which \
                 what is missing reads zero"
            }
            Finding::BadMask(_) | Finding::UnmarkedInMask { .. } | Finding::UnlistedBlob { .. } => {
                "rewrites the masks from the metadata"
            }
            Finding::UnreadablePage { .. } => "not repaired: copy the image to a device that can be read",
            Finding::SharedCluster { .. } | Finding::SharedPage { .. } => {
                "not repaired: nothing says whose it is; export both, and give up the one that is wrong with \
                 --give-up"
            }
            Finding::LeakedClusters { .. } | Finding::LeakedPages { .. } => {
                "frees them: rewrites the masks from the metadata"
            }
            Finding::OrphanedClone { .. } => {
                "not repaired: what the parent held is not there; restore the parent, or export what can be read \
                 and give up the clone with --give-up"
            }
            Finding::ParentCircle { .. } => {
                "not repaired: nothing says which link is wrong; give up one of the blobs with --give-up"
            }
            Finding::WritableParent { .. } => "makes the parent read-only, as every snapshot is",
            Finding::MissingSuperBlob { .. } => {
                "sets no super blob if there is nothing where it should be; a damaged one stays named"
            }
            Finding::WrongMapFlag { .. } => "sets the flag as the map is",
            Finding::UnknownDescriptor { .. } => {
                "not repaired: a newer program may need it; that program has to remove it"
            }
            Finding::UnfinishedImport { .. } => {
                "not repaired: import under the same name again, or remove it with spindle blob rm"
            }
            Finding::DeadLink { .. } => "removes the xattr",
            Finding::Lvolstore(fault) => fault.remedy(),
            Finding::HalfDone(_) => {
                "takes the marker off and keeps both blobs, unless the other blob is damaged"
            }
            Finding::Pending(_) => "does as the next load that may write would",
        }
    }
}

fn pending_code(reason: &RepairReason) -> &'static str {
    match reason {
        RepairReason::TornSuperBlock => "torn-super-block",
        RepairReason::MarkDirty => "marked-clean",
        RepairReason::RestorePage { .. } => "torn-page",
        RepairReason::ForgetCopy { .. } => "left-copy",
        RepairReason::ClearTorn { .. } => "torn-leftover",
        RepairReason::FinishSnapshot { .. } | RepairReason::DropUnfinishedSnapshot { .. } => {
            "half-made-snapshot"
        }
        RepairReason::KeepSnapshot { .. } | RepairReason::FinishSnapshotRemoval { .. } => {
            "half-deleted-snapshot"
        }
        RepairReason::UnshareClusters { .. } => "shared-with-snapshot",
        RepairReason::FinishResize { .. } | RepairReason::CutExtentPage { .. } => "half-done-resize",
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::DamagedBlob { blob, name, errors, .. } => {
                write!(f, "blob {blob}")?;
                name.iter().try_for_each(|name| write!(f, " ({name})"))?;
                write!(f, " is damaged")?;
                errors.iter().try_for_each(|error| write!(f, "; {error}"))
            }
            Finding::CutShort { bytes, whole, blobs, pages } => {
                write!(f, "the image has {bytes} bytes of the {whole} of its store")?;
                if *pages > 0 {
                    write!(
                        f,
                        "; {pages} pages of metadata are after its end, and what they held cannot be told"
                    )?;
                }
                match blobs.as_slice() {
                    [] if *pages > 0 => Ok(()),
                    [] => write!(f, "; no blob has data after its end"),
                    [first, rest @ ..] => {
                        write!(f, "; after its end is data of blob {first}")?;
                        rest.iter().try_for_each(|blob| write!(f, ", {blob}"))
                    }
                }
            }
            Finding::BadMask(error) => write!(f, "{error}"),
            Finding::UnreadablePage { page, offset } => {
                write!(f, "metadata page {page} at byte {offset} could not be read from the device")
            }
            Finding::SharedCluster { cluster, offset, owners } => {
                write!(f, "cluster {cluster} at byte {offset} has {} owners:", owners.len())?;
                owners.iter().try_for_each(|(blob, index)| write!(f, " blob {blob} as its cluster {index};"))
            }
            Finding::SharedPage { page, offset, owners } => {
                write!(f, "extent page {page} at byte {offset} has {} owners:", owners.len())?;
                owners.iter().try_for_each(|blob| write!(f, " blob {blob};"))
            }
            Finding::UnfinishedImport { blob } => {
                write!(f, "blob {blob} is being imported, or that was cut off")
            }
            Finding::DeadLink { blob, xattr, why } => write!(f, "blob {blob}: xattr {xattr} {why}"),
            Finding::LeakedClusters { clusters } => write!(f, "leaked clusters: {}", List(clusters)),
            Finding::LeakedPages { pages } => write!(f, "leaked metadata pages: {}", List(pages)),
            Finding::UnmarkedInMask { kind, offset, bits } => {
                write!(f, "{kind} mask at byte {offset} lacks what is in use: {}", List(bits))
            }
            Finding::UnlistedBlob { blob } => write!(f, "blob {blob} is missing in the mask of blob ids"),
            Finding::OrphanedClone { blob, parent } => {
                write!(f, "blob {blob} reads through {parent}, which is missing or damaged")
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
            Finding::Lvolstore(fault) => write!(f, "{fault}"),
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
