//! Findings of a single load about single blobs and clusters.

use super::{Cause, Finding, links, masks};
use crate::metadata::Flags;
use crate::repair::RepairReason;
use crate::sharing::{self, SharedCluster, SharedPage};
use crate::store::{Blob, Store};

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
    findings.extend(shared_clusters(store));
    findings.extend(shared_pages(store));
    findings.extend(masks::findings(store));
    findings.extend(store.unlisted.iter().map(|&blob| Finding::UnlistedBlob { blob }));
    findings.extend(store.blobs.values().flat_map(blob));
    let unfinished = store.blobs.keys().filter(|id| store.importing(**id).is_some());
    findings.extend(unfinished.map(|&blob| Finding::UnfinishedImport { blob }));
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

fn shared_clusters(store: &Store) -> impl Iterator<Item = Finding> + '_ {
    sharing::clusters(store).into_iter().map(|SharedCluster { cluster, owners }| {
        let offset = store.geometry.cluster_offset(cluster);
        Finding::SharedCluster { cluster, offset, owners }
    })
}

fn shared_pages(store: &Store) -> impl Iterator<Item = Finding> + '_ {
    sharing::pages(store).into_iter().map(|SharedPage { page, owners }| {
        let offset = store.geometry.page_offset(page);
        Finding::SharedPage { page, offset, owners }
    })
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
    findings
}
