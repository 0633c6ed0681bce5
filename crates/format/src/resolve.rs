//! Which cluster holds a piece of a blob, through snapshots and clones.

use crate::ids::{BlobId, ClusterIdx};
use crate::store::Store;

/// Where a cluster of a blob is to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source<'a> {
    /// In this cluster of the device; `owner` is the blob whose map says so.
    Cluster {
        /// The blob whose map names the cluster.
        owner: BlobId,
        /// The cluster of the device.
        cluster: ClusterIdx,
    },
    /// Nowhere: it reads as zeroes.
    Zeroes,
    /// At the same offset of an external snapshot (zeroes beyond its end).
    External {
        /// Its id.
        id: &'a [u8],
    },
}

/// Why a cluster cannot be resolved.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no such blob.
    #[error("blob {0} is not in the store")]
    NoSuchBlob(BlobId),
    /// A blob of the chain is missing or damaged.
    #[error("blob {blob} needs its parent {parent}, which is missing or damaged: run check")]
    MissingParent {
        /// The clone.
        blob: BlobId,
        /// Its parent.
        parent: BlobId,
    },
    /// The parents form a circle.
    #[error("the parents of blob {0} form a circle: run check")]
    Circle(BlobId),
}

/// Where cluster `index` of a blob is to be read. Beyond the blob's end: zeroes.
///
/// # Errors
/// The blob or one of its parents is not there, or the parents form a circle.
pub fn resolve(_store: &Store, _blob: BlobId, _index: u64) -> Result<Source<'_>, ResolveError> {
    todo!()
}
