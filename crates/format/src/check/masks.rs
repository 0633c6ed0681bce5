//! The masks of a clean store against its metadata.

use super::{Finding, Span};
use crate::bitmap::Bitmap;
use crate::mask::MaskKind;
use crate::metadata::Parent;
use crate::store::{Blob, Store};

/// Compares the masks of a clean store with its metadata.
pub(super) fn findings(store: &Store) -> Vec<Finding> {
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
    // Unknown: what a damaged or missing blob uses, and what pending operations will free.
    let lost = |blob: &Blob| matches!(blob.parent, Some(Parent::Snapshot(id)) if store.blob(id).is_none());
    let known = store.damaged.is_empty() && store.unlisted.is_empty() && !store.blobs.values().any(lost);
    if known && store.repairs.is_empty() {
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
