//! Finds the cluster that holds a piece of a blob, through snapshots and clones.

use crate::ids::{BlobId, ClusterIdx};
use crate::metadata::Parent;
use crate::store::Store;

/// Where to read a cluster of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source<'a> {
    /// In this cluster of the device.
    Cluster {
        /// The blob whose map names the cluster.
        owner: BlobId,
        /// The cluster of the device.
        cluster: ClusterIdx,
    },
    /// In no cluster: it reads as zeroes.
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

/// Where to read cluster `index` of a blob. Zeroes beyond the blob's end, and beyond the end of a parent that
/// is shorter than its clone.
///
/// # Errors
/// The blob does not exist; or no blob of the chain, down to a missing parent or once around a circle, has
/// the cluster.
pub fn resolve(store: &Store, blob: BlobId, index: u64) -> Result<Source<'_>, ResolveError> {
    let mut current = store.blob(blob).ok_or(ResolveError::NoSuchBlob(blob))?;
    // A chain without a circle visits every blob at most once.
    for _ in 0..store.blobs.len() {
        if index >= current.metadata.map.num_clusters() {
            return Ok(Source::Zeroes);
        }
        if let Some(cluster) = current.metadata.map.get(index) {
            return Ok(Source::Cluster { owner: current.id, cluster });
        }
        match &current.parent {
            None => return Ok(Source::Zeroes),
            Some(Parent::External(id)) => return Ok(Source::External { id }),
            Some(Parent::Snapshot(parent)) => {
                let missing = ResolveError::MissingParent { blob: current.id, parent: *parent };
                current = store.blob(*parent).ok_or(missing)?;
            }
        }
    }
    Err(ResolveError::Circle(blob))
}
