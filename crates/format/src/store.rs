//! A loaded store as data: what its metadata says after everything half-done has been resolved.
//!
//! Made by [`crate::loader::Loader::finish`]; a plain value that belongs to whoever asked.

use crate::bitmap::Bitmap;
use crate::error::FormatError;
use crate::geometry::Geometry;
use crate::ids::{BlobId, PageIdx};
use crate::metadata::BlobMetadata;
use crate::repair::Repair;
use crate::super_block::SuperBlock;
use std::collections::BTreeMap;

/// What is above a blob: who is asked for the clusters it does not have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parent {
    /// A snapshot in the same store.
    Snapshot(BlobId),
    /// A snapshot elsewhere, by an id that is opaque bytes (lvolstores: a UUID as text with its NUL).
    External(Vec<u8>),
}

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
}

/// Why clusters and pages must neither be given out nor taken back until the store has been repaired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllocationBlocked {
    /// The blobs whose maps could not be read on a store that is not clean.
    pub blobs: Vec<BlobId>,
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

    /// Whether this blob is a snapshot: another blob is its clone.
    pub fn is_snapshot(&self) -> bool {
        !self.clones.is_empty()
    }
}
