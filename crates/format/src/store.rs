//! A loaded store as data: its metadata after every half-done operation was resolved.
//!
//! Made by [`crate::loader::Loader::finish`]; a plain value.

use crate::bitmap::Bitmap;
use crate::error::{FormatError, Place};
use crate::geometry::Geometry;
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::metadata::{BlobMetadata, Parent, importing, internal};
use crate::repair::Repair;
use crate::super_block::SuperBlock;
use std::collections::BTreeMap;

/// One blob of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blob {
    /// Its id.
    pub id: BlobId,
    /// Its metadata.
    pub metadata: BlobMetadata,
    /// The pages of its chain, root first.
    pub chain: Vec<PageIdx>,
    /// Its parent.
    pub parent: Option<Parent>,
    /// The blobs whose parent it is, in order of their ids.
    pub clones: Vec<BlobId>,
    /// Descriptors of unknown types, skipped: place and type. SPDK skips them too, but refuses to recover a
    /// dirty store that has any.
    pub unknown_descriptors: Vec<(Place, u8)>,
}

/// A blob whose metadata could not be read, set aside so that the rest of the store works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedBlob {
    /// Its id.
    pub id: BlobId,
    /// What is wrong with it.
    pub errors: Vec<FormatError>,
    /// Its name, if the readable part of its metadata has one.
    pub name: Option<String>,
    /// The metadata pages known to be its own, root first if that can be read.
    pub pages: Vec<PageIdx>,
    /// The metadata pages that these name, with any contents.
    pub named_pages: Vec<PageIdx>,
    /// The blobs that these name: a parent, or the other blob of a snapshot operation.
    pub named_blobs: Vec<BlobId>,
    /// True if its chain could be read to the end, so that the damage is in what the chain names.
    pub whole_chain: bool,
}

/// The masks of a clean store as they are on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskMasks {
    /// Used metadata pages.
    pub used_pages: Bitmap,
    /// Used clusters.
    pub used_clusters: Bitmap,
    /// Used blob ids.
    pub used_blob_ids: Bitmap,
}

/// An interrupted snapshot operation that cannot be resolved without guessing; both blobs are left as they
/// are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HalfDone {
    /// The snapshot that carries the marker.
    pub snapshot: BlobId,
    /// True if it was being deleted, false if it was being made.
    pub removal: bool,
    /// The blob that the marker names.
    pub other: BlobId,
    /// Why it cannot be resolved.
    pub why: &'static str,
}

/// Why no clusters and pages may be allocated or freed until the store has been repaired: some that look free
/// may be in use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllocationBlocked {
    /// Blobs, on a store whose masks cannot be used, whose maps could not be read.
    pub blobs: Vec<BlobId>,
    /// Metadata pages that the device could not read and that may be the root of a blob.
    pub pages: Vec<PageIdx>,
    /// Clusters that two blobs name.
    pub clusters: Vec<ClusterIdx>,
    /// Extent pages that two blobs name.
    pub extent_pages: Vec<PageIdx>,
    /// Blobs missing in the mask of blob ids: what they use, or whose clones they are, is unknown.
    pub unlisted: Vec<BlobId>,
    /// Blobs that the marker of a snapshot operation names and that do not exist, on a store whose masks
    /// cannot be used.
    pub marked: Vec<BlobId>,
}

/// A store as its metadata describes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Store {
    /// The values of the super block on disk.
    pub super_block: SuperBlock,
    /// Its layout.
    pub geometry: Geometry,
    /// False if the masks on disk were used, true if everything was found by reading the metadata.
    pub recovered: bool,
    /// The blobs.
    pub blobs: BTreeMap<BlobId, Blob>,
    /// Blobs that could not be read.
    pub damaged: Vec<DamagedBlob>,
    /// Metadata pages in use.
    pub used_pages: Bitmap,
    /// Clusters in use, including those of the metadata.
    pub used_clusters: Bitmap,
    /// Metadata pages that are the root of a blob.
    pub used_blob_ids: Bitmap,
    /// Set if nothing may be allocated or freed.
    pub allocation_blocked: Option<AllocationBlocked>,
    /// The masks on disk, if the store was clean and they were used.
    pub disk_masks: Option<DiskMasks>,
    /// What is wrong with the masks of a store marked clean; then they were not used.
    pub mask_errors: Vec<FormatError>,
    /// Roots among the used pages of a clean store that its mask of blob ids lacks.
    pub unlisted: Vec<BlobId>,
    /// Interrupted snapshot operations that could not be resolved.
    pub half_done: Vec<HalfDone>,
    /// The repairs left for a writing load, in order. Everything else in here already includes them.
    pub repairs: Vec<Repair>,
}

impl Store {
    /// Clusters that no blob and no metadata uses.
    pub fn free_clusters(&self) -> u32 {
        self.used_clusters.len() - self.used_clusters.count()
    }

    /// A blob by its id.
    pub fn blob(&self, id: BlobId) -> Option<&Blob> {
        self.blobs.get(&id)
    }

    /// The name that a blob gets when its import is complete, if it is as an import leaves it: without a name of its
    /// own, neither the super blob nor read-only, without parent and clones.
    pub fn importing(&self, id: BlobId) -> Option<&[u8]> {
        let blob = self.blob(id).filter(|_| self.super_block.super_blob != Some(id))?;
        let alone = blob.parent.is_none() && blob.clones.is_empty() && !blob.metadata.flags.read_only();
        importing(blob.metadata.xattrs.iter().as_slice()).filter(|_| alone)
    }

    /// The blobs with this `name` xattr; several blobs may have the same name.
    pub fn blobs_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Blob> + 'a {
        self.blobs.values().filter(move |blob| blob.metadata.name() == Some(name))
    }

    /// True if the super block on disk is marked clean.
    pub fn was_clean(&self) -> bool {
        self.super_block.clean
    }
}

impl Blob {
    /// The name, if the blob has one.
    pub fn name(&self) -> Option<&str> {
        self.metadata.name()
    }

    /// The blobs that it names: a parent, or the other blob of a snapshot operation. They may be missing;
    /// then their ids must not be given to new blobs, which would be mistaken for them.
    pub fn named_blobs(&self) -> impl Iterator<Item = BlobId> + '_ {
        let names = [internal::SNAPSHOT, internal::SNAPSHOT_IN_PROGRESS, internal::SNAPSHOT_PENDING_REMOVAL];
        names.into_iter().filter_map(|name| self.metadata.internal_id(name))
    }

    /// Every metadata page of its own: the chain, root first, and the extent pages.
    pub fn pages(&self) -> impl Iterator<Item = PageIdx> + '_ {
        self.chain.iter().copied().chain(self.metadata.map.extent_pages().map(|(_, page)| page))
    }

    /// True if this blob is a snapshot: another blob is its clone.
    pub fn is_snapshot(&self) -> bool {
        !self.clones.is_empty()
    }
}
