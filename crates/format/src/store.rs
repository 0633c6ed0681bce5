//! A loaded store as data: what its metadata says after everything half-done has been resolved.
//!
//! Made by [`crate::loader::Loader::finish`]; a plain value that belongs to whoever asked.

use crate::bitmap::Bitmap;
use crate::error::{FormatError, Place};
use crate::geometry::Geometry;
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::metadata::{BlobMetadata, Parent, internal};
use crate::repair::Repair;
use crate::super_block::SuperBlock;
use std::collections::BTreeMap;

/// One blob of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blob {
    /// Its id.
    pub id: BlobId,
    /// What its metadata says.
    pub metadata: BlobMetadata,
    /// The pages of its chain, root first.
    pub chain: Vec<PageIdx>,
    /// What is above it.
    pub parent: Option<Parent>,
    /// The blobs whose parent it is, in order of their ids.
    pub clones: Vec<BlobId>,
    /// Descriptors of types that this crate does not know, skipped: place and type. SPDK skips them too,
    /// but refuses to recover a dirty store that has any.
    pub unknown_descriptors: Vec<(Place, u8)>,
}

/// A blob whose metadata could not be read, set aside so that the rest of the store works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedBlob {
    /// Its id.
    pub id: BlobId,
    /// What is wrong with it.
    pub errors: Vec<FormatError>,
    /// Its name if the readable part of its metadata gives one.
    pub name: Option<String>,
    /// The metadata pages that are known to be its, root first if that can be read.
    pub pages: Vec<PageIdx>,
    /// The metadata pages that these name, whatever they hold.
    pub named_pages: Vec<PageIdx>,
    /// The blobs that these name: a parent, or the other blob of a snapshot operation.
    pub named_blobs: Vec<BlobId>,
    /// Whether its chain could be read to the end, so that the damage is in what the chain names.
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

/// A snapshot operation that was cut off and cannot be resolved without guessing; both blobs are left as
/// they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HalfDone {
    /// The snapshot that carries the marker.
    pub snapshot: BlobId,
    /// Whether it was being deleted; else it was being made.
    pub removal: bool,
    /// The blob that the marker names.
    pub other: BlobId,
    /// Why it cannot be resolved.
    pub why: &'static str,
}

/// Why clusters and pages must neither be given out nor taken back until the store has been repaired: some
/// of those that look free may be in use.
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
    /// Blobs that the mask of blob ids lacks: nothing here knows what they use, or whose clones they are.
    pub unlisted: Vec<BlobId>,
    /// Blobs that the marker of a snapshot operation names and that are not there, on a store whose masks cannot
    /// be used.
    pub marked: Vec<BlobId>,
}

/// A store as its metadata describes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Store {
    /// The values of the super block on disk.
    pub super_block: SuperBlock,
    /// Where everything lies.
    pub geometry: Geometry,
    /// Whether the masks on disk were used, or everything was found by reading the metadata.
    pub recovered: bool,
    /// The blobs.
    pub blobs: BTreeMap<BlobId, Blob>,
    /// Blobs that could not be read.
    pub damaged: Vec<DamagedBlob>,
    /// Metadata pages in use.
    pub used_pages: Bitmap,
    /// Clusters in use, those of the metadata included.
    pub used_clusters: Bitmap,
    /// Metadata pages that are the root of a blob.
    pub used_blob_ids: Bitmap,
    /// Set if nothing may be allocated or freed.
    pub allocation_blocked: Option<AllocationBlocked>,
    /// The masks on disk, if the store was clean and they were used.
    pub disk_masks: Option<DiskMasks>,
    /// What is wrong with the masks of a store that says it is clean; then they were not used.
    pub mask_errors: Vec<FormatError>,
    /// Roots among the used pages of a clean store that its mask of blob ids does not have.
    pub unlisted: Vec<BlobId>,
    /// Snapshot operations that were cut off and could not be resolved.
    pub half_done: Vec<HalfDone>,
    /// What a writing load still has to carry out, in order. Everything else in here is as after that.
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

    /// The blobs whose `name` xattr is this; more than one blob may have the same name.
    pub fn blobs_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Blob> + 'a {
        self.blobs.values().filter(move |blob| blob.metadata.name() == Some(name))
    }

    /// Whether the super block on disk says that the store was unloaded in order.
    pub fn was_clean(&self) -> bool {
        self.super_block.clean
    }
}

impl Blob {
    /// The name, if the blob has one.
    pub fn name(&self) -> Option<&str> {
        self.metadata.name()
    }

    /// The blobs that it names: a parent, or the other blob of a snapshot operation. They need not be there; then
    /// their ids must not go to new blobs, which would be taken for what was meant.
    pub fn named_blobs(&self) -> impl Iterator<Item = BlobId> + '_ {
        let names = [internal::SNAPSHOT, internal::SNAPSHOT_IN_PROGRESS, internal::SNAPSHOT_PENDING_REMOVAL];
        names.into_iter().filter_map(|name| self.metadata.internal_id(name))
    }

    /// Every metadata page that is its: the chain, root first, and the extent pages.
    pub fn pages(&self) -> impl Iterator<Item = PageIdx> + '_ {
        self.chain.iter().copied().chain(self.metadata.map.extent_pages().map(|(_, page)| page))
    }

    /// Whether this blob is a snapshot: another blob is its clone.
    pub fn is_snapshot(&self) -> bool {
        !self.clones.is_empty()
    }
}
