//! What callers choose: how a store is made or loaded, how a blob is made; and what they are told.

use std::sync::Arc;

use spindle_block::Device;
use spindle_format::super_block::BsType;
use spindle_format::{BlobId, ClearMethod};

use crate::ordering::Order;

/// Finds the device behind an external snapshot.
///
/// Asked on the metadata thread with the id that the clone carries, opaque bytes (lvolstores: a UUID as text
/// with its NUL). `None` says that it is not there: the clone can then be listed and deleted, not read.
pub type ExternalSource = Arc<dyn Fn(&[u8]) -> Option<Arc<dyn Device>> + Send + Sync>;

/// Called while a store is loaded.
pub type LoadProgress = Arc<dyn Fn(LoadStep) + Send + Sync>;

/// How far a load has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoadStep {
    /// Bytes of metadata that have been read.
    pub bytes_read: u64,
    /// Bytes of the store's metadata: at most this many will be read, and most of it only if the store was
    /// not unloaded in order. 0 while the super block is not known yet.
    pub bytes_total: u64,
    /// How far the blobs have been put together from what was read: units of work, a few for each metadata page
    /// in use, done of so many as far as is known. 0 of 0 while it is being read.
    pub assembled: (u64, u64),
    /// Repairs that have been written, of so many.
    pub repairs: (usize, usize),
}

/// What holds for a store while it is open.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// Finds external snapshots; without it their clones cannot be read where they have no data themselves.
    pub external: Option<ExternalSource>,
    /// Which ordering points are kept: all of them, but in proofs.
    pub order: Order,
}

/// How a store is made.
#[derive(Clone, Default)]
pub struct InitOptions {
    /// Layout and type; SPDK's defaults by default.
    pub layout: spindle_format::init::InitOptions,
    /// Overwrite what the device holds, whatever it is.
    pub force: bool,
    /// What holds while it is open.
    pub store: StoreOptions,
}

/// How a store is loaded.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// The type that the store must have; any by default.
    pub bs_type: Option<BsType>,
    /// Find out by reading all metadata what is in use, whatever the masks of a clean store say.
    pub force_recover: bool,
    /// Change nothing on the device: repairs are done in memory, and everything that writes is refused.
    pub read_only: bool,
    /// Take over the space that the device has gained since the store was made, if it fits the masks.
    pub grow: bool,
    /// Told, on the metadata thread, how far the load has come.
    pub progress: Option<LoadProgress>,
    /// What holds while it is open.
    pub store: StoreOptions,
}

/// How a blob is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlobOptions {
    /// Its size in clusters.
    pub clusters: u64,
    /// Whether a cluster is allocated when it is first written; else all are allocated now, and zeroed unless
    /// `clear_method` is [`ClearMethod::None`].
    pub thin: bool,
    /// Whether the cluster map is a table of pages, SPDK's default, or a run-length list.
    pub extent_table: bool,
    /// Its xattrs, in this order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// How clusters are cleared when they are given back.
    pub clear_method: ClearMethod,
    /// The id of an external snapshot that it is a clone of; makes it thin.
    pub external_snapshot: Option<Vec<u8>>,
}

impl Default for BlobOptions {
    fn default() -> BlobOptions {
        BlobOptions {
            clusters: 0,
            thin: false,
            extent_table: true,
            xattrs: Vec::new(),
            clear_method: ClearMethod::Default,
            external_snapshot: None,
        }
    }
}

impl BlobOptions {
    /// A thick blob of so many clusters.
    pub fn thick(clusters: u64) -> BlobOptions {
        BlobOptions { clusters, ..BlobOptions::default() }
    }

    /// A thin blob of so many clusters.
    pub fn thin(clusters: u64) -> BlobOptions {
        BlobOptions { clusters, thin: true, ..BlobOptions::default() }
    }

    /// With one more xattr.
    #[must_use]
    pub fn xattr(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> BlobOptions {
        self.xattrs.push((name.into(), value.into()));
        self
    }
}

/// How a blob is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    /// How clusters that it gives back are cleared while it is open, whatever its own method is. Who opens
    /// it last decides.
    pub clear_method: Option<ClearMethod>,
}

/// What is known of a blob without opening it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlobInfo {
    /// Its id.
    pub id: BlobId,
    /// Its size in clusters.
    pub clusters: u64,
    /// Clusters it has itself.
    pub allocated: u64,
    /// Whether clusters are allocated when first written.
    pub thin: bool,
    /// Whether its data cannot be written.
    pub read_only: bool,
    /// How clusters are cleared when it gives them back; with `None` new ones may show old data.
    pub clear_method: ClearMethod,
    /// What it reads where it has nothing itself.
    pub parent: Option<spindle_format::Parent>,
    /// The blobs whose parent it is.
    pub clones: Vec<BlobId>,
    /// Whether something that it reads through is missing or damaged: what it has not itself cannot be read.
    pub degraded: bool,
}

/// What is known of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreInfo {
    /// Bytes of a cluster.
    pub cluster_size: u32,
    /// Bytes of the smallest I/O.
    pub io_unit_size: u32,
    /// Clusters that can hold data.
    pub data_clusters: u32,
    /// Clusters that are free.
    pub free_clusters: u32,
    /// Bytes of the largest device that the store can grow to.
    pub max_growable_size: u64,
    /// Bytes of a metadata page.
    pub md_page_size: u32,
    /// Metadata pages.
    pub md_pages: u32,
    /// Metadata pages in use.
    pub used_md_pages: u32,
    /// Whose store it is.
    pub bs_type: BsType,
    /// The blob that programs look for first.
    pub super_blob: Option<BlobId>,
    /// Parts of the maps of open blobs in memory, each of 512 clusters and about 2 KiB. Blobs share those
    /// that do not differ from their parents'.
    pub map_leaves: u64,
    /// Whether the load had to find out from the metadata what is in use.
    pub recovered: bool,
    /// Blobs that cannot be read.
    pub damaged: Vec<BlobId>,
}
