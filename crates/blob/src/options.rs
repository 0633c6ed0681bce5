//! Options for making or loading a store and for making a blob, and information returned to callers.

use std::sync::Arc;

use spindle_block::Device;
use spindle_format::super_block::BsType;
use spindle_format::{BlobId, ClearMethod};

use crate::ordering::Order;

/// Finds the device of an external snapshot.
///
/// Called on the metadata thread with the id that the clone carries, opaque bytes (lvolstores: a UUID as text
/// with its NUL). `None` means missing: the clone can then be listed and deleted, but not read. While the clone is
/// open the device is claimed for reading only; one that a writer has claimed counts as missing.
pub type ExternalSource = Arc<dyn Fn(&[u8]) -> Option<Arc<dyn Device>> + Send + Sync>;

/// Called while a store is loaded.
pub type LoadProgress = Arc<dyn Fn(LoadStep) + Send + Sync>;

/// The progress of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoadStep {
    /// Bytes of metadata that have been read.
    pub bytes_read: u64,
    /// Bytes of the store's metadata: at most this many will be read, and most of it only if the store was
    /// not unloaded cleanly. 0 while the super block is not known yet.
    pub bytes_total: u64,
    /// Progress of assembling the blobs: units of work (a few for each metadata page in use), done and known
    /// total. 0 of 0 while metadata is being read.
    pub assembled: (u64, u64),
    /// Repairs written, and their total.
    pub repairs: (usize, usize),
}

/// Options of a store while it is open.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// Finds external snapshots; without it their clones can be read only where they own clusters.
    pub external: Option<ExternalSource>,
    /// The ordering points that are kept: all of them, except in proofs.
    pub order: Order,
}

/// How a store is made.
#[derive(Clone, Default)]
pub struct InitOptions {
    /// Layout and type; SPDK's defaults by default.
    pub layout: spindle_format::init::InitOptions,
    /// Overwrites any known contents of the device.
    pub force: bool,
    /// Options while it is open.
    pub store: StoreOptions,
}

/// How a store is loaded.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// The type that the store must have; by default any.
    pub bs_type: Option<BsType>,
    /// Determines what is in use by reading all metadata, even if the masks of the store are clean.
    pub force_recover: bool,
    /// Changes nothing on the device: repairs are done in memory, and operations that write are refused. Of a
    /// device that has become smaller than its store, what is there is read.
    pub read_only: bool,
    /// Takes over the space that the device has gained since the store was made, if it fits the masks.
    pub grow: bool,
    /// Called on the metadata thread with the progress of the load.
    pub progress: Option<LoadProgress>,
    /// Options while it is open.
    pub store: StoreOptions,
}

/// How a blob is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlobOptions {
    /// Its size in clusters.
    pub clusters: u64,
    /// True: a cluster is allocated when it is first written. False: all are allocated now, and zeroed unless
    /// `clear_method` is [`ClearMethod::None`].
    pub thin: bool,
    /// True: the cluster map is a table of pages, SPDK's default. False: a run-length list.
    pub extent_table: bool,
    /// Its xattrs, in this order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// How clusters are cleared when they are given back.
    pub clear_method: ClearMethod,
    /// The id of the external snapshot of which it is a clone; makes it thin.
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
    /// A thick blob of `clusters` clusters.
    pub fn thick(clusters: u64) -> BlobOptions {
        BlobOptions { clusters, ..BlobOptions::default() }
    }

    /// A thin blob of `clusters` clusters.
    pub fn thin(clusters: u64) -> BlobOptions {
        BlobOptions { clusters, thin: true, ..BlobOptions::default() }
    }

    /// Adds an xattr.
    #[must_use]
    pub fn xattr(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> BlobOptions {
        self.xattrs.push((name.into(), value.into()));
        self
    }
}

/// How a blob is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlobOpenOptions {
    /// How clusters that it gives back are cleared while it is open, instead of its own method. The last
    /// opening decides.
    pub clear_method: Option<ClearMethod>,
}

/// Properties of a blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlobInfo {
    /// Its id.
    pub id: BlobId,
    /// Its size in clusters.
    pub clusters: u64,
    /// Clusters that it owns.
    pub allocated: u64,
    /// True if clusters are allocated when first written.
    pub thin: bool,
    /// True if its data cannot be written.
    pub read_only: bool,
    /// How clusters are cleared when it gives them back; with `None` new ones may show old data.
    pub clear_method: ClearMethod,
    /// What it reads where it owns no cluster.
    pub parent: Option<spindle_format::Parent>,
    /// The blobs whose parent it is.
    pub clones: Vec<BlobId>,
    /// True if something that it reads through is missing or damaged: clusters that it does not own cannot be
    /// read.
    pub degraded: bool,
}

/// Properties of a store.
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
    /// Bytes of free clusters that deletions have left and that are still to clear in the background, by the clear
    /// methods of the blobs that had them. After the recovery of a store also those that the device still holds
    /// without need, as far as they have been found. An unload waits until there are none.
    pub clearing_bytes: u64,
    /// Size in bytes of the largest device to which the store can grow.
    pub max_growable_size: u64,
    /// Bytes of a metadata page.
    pub md_page_size: u32,
    /// Metadata pages.
    pub md_pages: u32,
    /// Metadata pages in use.
    pub used_md_pages: u32,
    /// The store's type.
    pub bs_type: BsType,
    /// The blob that programs look for first.
    pub super_blob: Option<BlobId>,
    /// Parts of the maps of open blobs in memory, each of 512 clusters and about 2 KiB. Blobs share those
    /// that do not differ from their parents'.
    pub map_leaves: u64,
    /// Why it refuses changes, and what to do; none while it takes them.
    pub refuses_changes: Option<String>,
    /// True if the load had to determine from the metadata what is in use.
    pub recovered: bool,
    /// Blobs that cannot be read.
    pub damaged: Vec<BlobId>,
}
