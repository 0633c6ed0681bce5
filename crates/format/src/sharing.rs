//! Finds clusters and extent pages that the blobs' maps name in more than one place: a write to one changes
//! all.
//!
//! Computed from a loaded [`Store`] with everything half-done resolved. A healthy store has none, and then
//! the search costs nothing.

use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::store::Store;
use std::collections::BTreeMap;

/// A cluster that is named in more than one place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedCluster {
    /// The cluster.
    pub cluster: ClusterIdx,
    /// The blobs, each with the index of its cluster.
    pub owners: Vec<(BlobId, u64)>,
}

/// An extent page that more than one blob names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedPage {
    /// The page.
    pub page: PageIdx,
    /// The blobs.
    pub owners: Vec<BlobId>,
}

/// Returns the clusters that are named in more than one place, in order.
pub fn clusters(store: &Store) -> Vec<SharedCluster> {
    let Some(blocked) = store.allocation_blocked.as_ref().filter(|blocked| !blocked.clusters.is_empty())
    else {
        return Vec::new();
    };
    let mut owners: BTreeMap<ClusterIdx, Vec<(BlobId, u64)>> =
        blocked.clusters.iter().map(|&cluster| (cluster, Vec::new())).collect();
    for blob in store.blobs.values() {
        for run in blob.metadata.map.runs() {
            let end = ClusterIdx(run.cluster.0 + run.length);
            for (&cluster, owners) in owners.range_mut(run.cluster..end) {
                owners.push((blob.id, run.start + u64::from(cluster.0 - run.cluster.0)));
            }
        }
    }
    owners.into_iter().map(|(cluster, owners)| SharedCluster { cluster, owners }).collect()
}

/// Returns the extent pages that more than one blob names, in order.
pub fn pages(store: &Store) -> Vec<SharedPage> {
    let Some(blocked) = store.allocation_blocked.as_ref().filter(|blocked| !blocked.extent_pages.is_empty())
    else {
        return Vec::new();
    };
    let mut owners: BTreeMap<PageIdx, Vec<BlobId>> =
        blocked.extent_pages.iter().map(|&page| (page, Vec::new())).collect();
    for blob in store.blobs.values() {
        for (_, page) in blob.metadata.map.extent_pages() {
            owners.entry(page).and_modify(|owners| owners.push(blob.id));
        }
    }
    owners.into_iter().map(|(page, owners)| SharedPage { page, owners }).collect()
}

/// Returns the blobs with such a cluster or page, each with another blob that has it, or itself if it names
/// the cluster twice.
pub fn blobs(store: &Store) -> BTreeMap<BlobId, BlobId> {
    let of_clusters = clusters(store).into_iter();
    let of_clusters = of_clusters.map(|one| one.owners.into_iter().map(|(blob, _)| blob).collect::<Vec<_>>());
    let of_pages = pages(store).into_iter().map(|one| one.owners);
    let mut sharing = BTreeMap::new();
    for owners in of_clusters.chain(of_pages).filter(|owners| owners.len() > 1) {
        for &blob in &owners {
            let other = owners.iter().copied().find(|&other| other != blob).unwrap_or(blob);
            let known = sharing.entry(blob).or_insert(other);
            // Another blob is the more useful answer.
            if *known == blob {
                *known = other;
            }
        }
    }
    sharing
}
