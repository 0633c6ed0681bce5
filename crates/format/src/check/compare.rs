//! Findings of a single load about single blobs and clusters.

use super::{Cause, Finding, links, masks};
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::metadata::{Flags, IMPORTING};
use crate::repair::RepairReason;
use crate::store::{Blob, Store};
use std::collections::BTreeMap;

pub(super) fn findings(store: &Store) -> Vec<Finding> {
    let mut findings: Vec<Finding> = store.mask_errors.iter().cloned().map(Finding::BadMask).collect();
    findings.extend(store.damaged.iter().map(|damaged| Finding::DamagedBlob {
        blob: damaged.id,
        name: damaged.name.clone(),
        errors: damaged.errors.clone(),
        cause: Cause::of(damaged),
    }));
    let blocked = store.allocation_blocked.clone().unwrap_or_default();
    findings.extend(
        blocked
            .pages
            .iter()
            .map(|&page| Finding::UnreadablePage { page, offset: store.geometry.page_offset(page) }),
    );
    findings.extend(shared_clusters(store, &blocked.clusters));
    findings.extend(shared_pages(store));
    findings.extend(masks::findings(store));
    findings.extend(store.unlisted.iter().map(|&blob| Finding::UnlistedBlob { blob }));
    findings.extend(store.blobs.values().flat_map(blob));
    findings.extend(links::findings(store));
    findings.extend(store.blobs.values().flat_map(links::dead));
    let missing = store.super_block.super_blob.filter(|&blob| store.blob(blob).is_none());
    findings.extend(missing.map(|blob| Finding::MissingSuperBlob { blob }));
    findings.extend(store.half_done.iter().cloned().map(Finding::HalfDone));
    // Marking a store dirty before a repair is not itself a repair.
    let reasons = store.repairs.iter().map(|repair| &repair.reason);
    let reasons = reasons.filter(|reason| **reason != RepairReason::MarkDirty);
    findings.extend(reasons.cloned().map(Finding::Pending));
    findings
}

/// The owners of clusters that are named twice.
fn shared_clusters(store: &Store, clusters: &[ClusterIdx]) -> Vec<Finding> {
    if clusters.is_empty() {
        return Vec::new();
    }
    let mut owners: BTreeMap<ClusterIdx, Vec<(BlobId, u64)>> =
        clusters.iter().map(|&cluster| (cluster, Vec::new())).collect();
    for blob in store.blobs.values() {
        for run in blob.metadata.map.runs() {
            let end = ClusterIdx(run.cluster.0 + run.length);
            for (&cluster, owners) in owners.range_mut(run.cluster..end) {
                owners.push((blob.id, run.start + u64::from(cluster.0 - run.cluster.0)));
            }
        }
    }
    let found = owners.into_iter().map(|(cluster, owners)| Finding::SharedCluster {
        cluster,
        offset: store.geometry.cluster_offset(cluster),
        owners,
    });
    found.collect()
}

/// Extent pages that more than one blob names.
fn shared_pages(store: &Store) -> Vec<Finding> {
    let mut owners: BTreeMap<PageIdx, Vec<BlobId>> = BTreeMap::new();
    for blob in store.blobs.values() {
        for (_, page) in blob.metadata.map.extent_pages() {
            owners.entry(page).or_default().push(blob.id);
        }
    }
    let shared = owners.into_iter().filter(|(_, owners)| owners.len() > 1);
    let found = shared.map(|(page, owners)| Finding::SharedPage {
        page,
        offset: store.geometry.page_offset(page),
        owners,
    });
    found.collect()
}

/// Inconsistencies within a blob.
fn blob(blob: &Blob) -> Vec<Finding> {
    let id = blob.id;
    let mut findings: Vec<Finding> = blob
        .unknown_descriptors
        .iter()
        .map(|&(place, kind)| Finding::UnknownDescriptor { blob: id, place, kind })
        .collect();
    let table = blob.metadata.map.is_table();
    let says = blob.metadata.flags.invalid & Flags::EXTENT_TABLE != 0;
    // SPDK writes no table at all for a blob of size 0 if the page has no room for one.
    if table != says && blob.metadata.map.num_clusters() > 0 {
        findings.push(Finding::WrongMapFlag { blob: id, table });
    }
    if !blob.clones.is_empty() && !blob.metadata.flags.read_only() {
        findings.push(Finding::WritableParent { blob: id, clones: blob.clones.clone() });
    }
    if blob.metadata.xattrs.get(IMPORTING).is_some() {
        findings.push(Finding::UnfinishedImport { blob: id });
    }
    findings
}
