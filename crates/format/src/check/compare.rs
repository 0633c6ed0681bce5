//! The comparisons themselves.

use super::{Finding, Span};
use crate::bitmap::Bitmap;
use crate::cluster_map::ClusterMap;
use crate::ids::{BlobId, ClusterIdx};
use crate::mask::MaskKind;
use crate::metadata::Flags;
use crate::store::{Blob, Parent, Store};
use std::collections::BTreeMap;

pub(super) fn findings(store: &Store) -> Vec<Finding> {
    let mut findings: Vec<Finding> = store.mask_errors.iter().cloned().map(Finding::BadMask).collect();
    findings.extend(store.damaged.iter().map(|damaged| Finding::DamagedBlob {
        blob: damaged.id,
        name: damaged.name.clone(),
        errors: damaged.errors.clone(),
    }));
    let blocked = store.allocation_blocked.clone().unwrap_or_default();
    findings.extend(
        blocked
            .pages
            .iter()
            .map(|&page| Finding::UnreadablePage { page, offset: store.geometry.page_offset(page) }),
    );
    findings.extend(shared(store, &blocked.clusters));
    findings.extend(masks(store));
    findings.extend(store.unlisted.iter().map(|&blob| Finding::UnlistedBlob { blob }));
    findings.extend(store.blobs.values().flat_map(blob));
    findings.extend(links(store));
    let missing = store.super_block.super_blob.filter(|&blob| store.blob(blob).is_none());
    findings.extend(missing.map(|blob| Finding::MissingSuperBlob { blob }));
    findings.extend(store.half_done.iter().cloned().map(Finding::HalfDone));
    findings.extend(store.repairs.iter().map(|repair| Finding::Pending(repair.reason.clone())));
    findings
}

/// Who names the clusters that are named twice.
fn shared(store: &Store, clusters: &[ClusterIdx]) -> Vec<Finding> {
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

/// The masks of a clean store against what its metadata says.
fn masks(store: &Store) -> Vec<Finding> {
    let Some(masks) = &store.disk_masks else { return Vec::new() };
    let (geometry, mut findings) = (&store.geometry, Vec::new());
    let mut pages = Bitmap::new(geometry.md_pages());
    let mut clusters = Bitmap::new(geometry.total_clusters());
    for cluster in 0..geometry.metadata_clusters() {
        clusters.set(cluster);
    }
    for blob in store.blobs.values() {
        for page in blob.pages() {
            pages.set(page.0);
        }
        for run in blob.metadata.map.runs() {
            for cluster in run.cluster.0..run.cluster.0 + run.length {
                clusters.set(cluster);
            }
        }
    }
    for &page in store.damaged.iter().flat_map(|damaged| &damaged.pages) {
        pages.set(page.0);
    }
    pages.union(&masks.used_blob_ids);
    let unmarked = [
        (MaskKind::UsedPages, spans(&pages, &masks.used_pages)),
        (MaskKind::UsedClusters, spans(&clusters, &masks.used_clusters)),
    ];
    for (kind, bits) in unmarked.into_iter().filter(|(_, bits)| !bits.is_empty()) {
        let (offset, _) = geometry.bytes_of(geometry.mask(kind));
        findings.push(Finding::UnmarkedInMask { kind, offset, bits });
    }
    // What a damaged blob uses is not known, nor is what operations still to be finished will free.
    if store.damaged.is_empty() && store.repairs.is_empty() && store.unlisted.is_empty() {
        let leaked = spans(&masks.used_clusters, &clusters);
        findings.extend((!leaked.is_empty()).then_some(Finding::LeakedClusters { clusters: leaked }));
        let leaked = spans(&masks.used_pages, &pages);
        findings.extend((!leaked.is_empty()).then_some(Finding::LeakedPages { pages: leaked }));
    }
    findings
}

/// The bits that one map has and the other lacks.
fn spans(has: &Bitmap, lacks: &Bitmap) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for bit in has.iter().filter(|&bit| !lacks.get(bit)) {
        match spans.last_mut() {
            Some(span) if span.first + span.count == bit => span.count += 1,
            _ => spans.push(Span { first: bit, count: 1 }),
        }
    }
    spans
}

fn blob(blob: &Blob) -> Vec<Finding> {
    let id = blob.id;
    let mut findings: Vec<Finding> = blob
        .unknown_descriptors
        .iter()
        .map(|&(place, kind)| Finding::UnknownDescriptor { blob: id, place, kind })
        .collect();
    let table = matches!(blob.metadata.map, ClusterMap::Table(_));
    let says = blob.metadata.flags.invalid & Flags::EXTENT_TABLE != 0;
    // SPDK writes no table at all for a blob of no size if there is no room for one in the page.
    if table != says && blob.metadata.map.num_clusters() > 0 {
        findings.push(Finding::WrongMapFlag { blob: id, table });
    }
    if !blob.clones.is_empty() && !blob.metadata.flags.read_only() {
        findings.push(Finding::WritableParent { blob: id, clones: blob.clones.clone() });
    }
    findings
}

/// Parents that are missing or in circles.
fn links(store: &Store) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Roots of the forest first, then everything below them: what is never reached is in or below a circle.
    let mut reached: Vec<BlobId> = Vec::new();
    for blob in store.blobs.values() {
        match blob.parent {
            Some(Parent::Snapshot(parent)) if store.blob(parent).is_some() => continue,
            Some(Parent::Snapshot(parent)) => findings.push(Finding::OrphanedClone { blob: blob.id, parent }),
            Some(Parent::External(_)) | None => {}
        }
        reached.push(blob.id);
    }
    let mut at = 0;
    while let Some(&id) = reached.get(at) {
        reached.extend(store.blob(id).into_iter().flat_map(|blob| blob.clones.iter().copied()));
        at += 1;
    }
    reached.sort();
    let unreached = store.blobs.keys().filter(|id| reached.binary_search(id).is_err());
    findings.extend(unreached.map(|&blob| Finding::ParentCircle { blob }));
    findings
}
