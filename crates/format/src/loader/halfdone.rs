//! Resolves snapshot operations that a crash interrupted, by the markers they left.
//!
//! A snapshot being made carries `SNAPTMP`, one being deleted `SNAPRM`, each with the id of the other blob.
//! If that blob names the snapshot as its parent, the snapshot is needed and stays; if not, everything in it
//! also belongs to the other blob, and the snapshot is removed. While a snapshot is being deleted SPDK
//! rewrites extent pages of the clone with the snapshot's clusters in them before the clone stops naming the
//! snapshot: if interrupted there, both own them (SPDK itself then loses data when the clone is deleted). The
//! clone's entries are cleared: it reads the same through the snapshot. SPDK's loader removes the marker
//! without noticing that, so the same is done for every clone and parent, with or without a marker.

use super::assemble::{Blobs, Draft, Left};
use super::pace::Pace;
use crate::bitmap::Bitmap;
use crate::cluster_map::{CLUSTERS_PER_EXTENT_PAGE, ClusterMap};
use crate::error::Problem;
use crate::geometry::Geometry;
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::metadata::{Flags, internal};
use crate::repair::RepairReason;
use crate::store::{DamagedBlob, DiskMasks, HalfDone};
use std::collections::{BTreeMap, BTreeSet};

/// A blob that was changed in memory and whose metadata must be written.
#[derive(Debug)]
pub(super) struct Rewrite {
    pub(super) blob: BlobId,
    pub(super) reason: RepairReason,
    /// True if the chain changed.
    pub(super) chain: bool,
    /// Slots of the extent table whose pages changed.
    pub(super) slots: BTreeSet<u32>,
}

/// The result of resolving.
#[derive(Debug, Default)]
pub(super) struct Resolution {
    pub(super) removed: Vec<(BlobId, Draft, RepairReason)>,
    pub(super) rewrites: Vec<Rewrite>,
    pub(super) unresolved: Vec<HalfDone>,
    /// Clusters that still have two owners.
    pub(super) conflicts: Vec<ClusterIdx>,
    /// Extent pages that two blobs name.
    pub(super) shared_pages: Vec<PageIdx>,
    /// Clusters that have an owner.
    pub(super) named: Bitmap,
}

/// Resolves everything half-done in the blobs.
pub(super) async fn resolve(
    geometry: &Geometry,
    blobs: &mut Blobs,
    left: &Left,
    masks: Option<&DiskMasks>,
    pace: &Pace,
) -> Resolution {
    let mut resolution = Resolution::default();
    if left.in_order {
        set_cut_short_aside(geometry, blobs, masks, pace).await;
    }
    resolve_markers(blobs, &mut resolution, pace).await;
    let mut named = Named::of(geometry, &blobs.drafts, pace).await;
    if named.twice.count() > 0 {
        unshare(blobs, &named.twice, &mut resolution, pace).await;
        named = Named::of(geometry, &blobs.drafts, pace).await;
    }
    resolution.conflicts = named.twice.iter().map(ClusterIdx).collect();
    resolution.shared_pages = named.pages_twice.iter().map(PageIdx).collect();
    resolution.named = named.clusters;
    resolution.rewrites.extend(resizes(geometry, &blobs.drafts, left.in_order));
    resolution
}

/// Writes left over from interrupted resizes. SPDK does not open a blob of a clean store whose extent page
/// names a free cluster beyond its end. A page named by two blobs stays as it is.
fn resizes(geometry: &Geometry, drafts: &BTreeMap<BlobId, Draft>, in_order: bool) -> Vec<Rewrite> {
    let half_done = |draft: &Draft| draft.resize.chain || !draft.resize.slots.is_empty();
    if !drafts.values().any(half_done) {
        return Vec::new();
    }
    let (mut once, mut twice) = (Bitmap::new(geometry.md_pages()), Bitmap::new(geometry.md_pages()));
    for (_, page) in drafts.values().flat_map(|draft| draft.metadata.map.extent_pages()) {
        if !once.set(page.0) {
            twice.set(page.0);
        }
    }
    let rewrite = |(&blob, draft): (&BlobId, &Draft)| {
        let map = &draft.metadata.map;
        let own = map
            .extent_pages()
            .filter(|&(slot, page)| draft.resize.slots.contains(&slot) && !twice.get(page.0));
        let slots: BTreeSet<u32> = own.map(|(slot, _)| slot).collect();
        let clusters = map.num_clusters();
        let reason = match in_order {
            true => RepairReason::CutExtentPage { blob, clusters },
            false => RepairReason::FinishResize { blob, clusters },
        };
        let rewrite = Rewrite { blob, reason, chain: draft.resize.chain, slots };
        (rewrite.chain || !rewrite.slots.is_empty()).then_some(rewrite)
    };
    drafts.iter().filter_map(rewrite).collect()
}

/// Sets blobs aside whose extent pages continue beyond their ends, in a cleanly unloaded store, where that
/// may be data: SPDK leaves such a page where it deleted a snapshot larger than its clone, but frees the
/// clusters beyond. Clusters in use that no other blob has belong to the blob, and its root is older than the
/// page.
async fn set_cut_short_aside(geometry: &Geometry, blobs: &mut Blobs, masks: Option<&DiskMasks>, pace: &Pace) {
    if blobs.drafts.values().all(|draft| draft.resize.beyond.is_empty()) {
        return;
    }
    let named = Named::of(geometry, &blobs.drafts, pace).await.clusters;
    let in_use = |cluster: u32| masks.is_none_or(|masks| masks.used_clusters.get(cluster));
    let may_be_data = |cluster: &ClusterIdx| !named.get(cluster.0) && in_use(cluster.0);
    let short: Vec<BlobId> = blobs
        .drafts
        .iter()
        .filter(|(_, draft)| draft.resize.beyond.iter().any(may_be_data))
        .map(|(&id, _)| id)
        .collect();
    for (id, draft) in short.into_iter().filter_map(|id| Some((id, blobs.drafts.remove(&id)?))) {
        let slot = draft.resize.slots.last().and_then(|&slot| draft.metadata.map.leaf(slot));
        let page = slot.and_then(|leaf| leaf.page).or(draft.chain.first().copied()).unwrap_or(PageIdx(0));
        let clusters = draft.metadata.map.num_clusters();
        let rule = format!("goes on beyond the blob's {clusters} clusters, with clusters that are in use");
        blobs.damaged.push(DamagedBlob {
            id,
            errors: vec![Problem::Rule(rule).at(geometry.page_place(page))],
            name: draft.metadata.name().map(str::to_owned),
            named_pages: draft.metadata.map.extent_pages().map(|(_, page)| page).collect(),
            named_blobs: draft.snapshot().into_iter().collect(),
            pages: draft.chain,
            whole_chain: true,
        });
    }
    blobs.damaged.sort_by_key(|damaged| damaged.id);
}

fn rewrite_chain(blob: BlobId, reason: RepairReason) -> Rewrite {
    Rewrite { blob, reason, chain: true, slots: BTreeSet::new() }
}

/// The marker of a blob: true if it was being deleted, and the other blob.
pub(super) fn marker(draft: &Draft) -> Option<(bool, BlobId)> {
    let metadata = &draft.metadata;
    let removal = metadata.internal_id(internal::SNAPSHOT_PENDING_REMOVAL).map(|other| (true, other));
    removal.or_else(|| Some((false, metadata.internal_id(internal::SNAPSHOT_IN_PROGRESS)?)))
}

async fn resolve_markers(blobs: &mut Blobs, resolution: &mut Resolution, pace: &Pace) {
    let marked: Vec<(BlobId, bool, BlobId)> = blobs
        .marked
        .iter()
        .filter_map(|&id| marker(blobs.drafts.get(&id)?).map(|(removal, other)| (id, removal, other)))
        .collect();
    if marked.is_empty() {
        return;
    }
    let mut clones: BTreeMap<BlobId, Vec<BlobId>> = BTreeMap::new();
    for (&id, draft) in &blobs.drafts {
        pace.spend(1).await;
        if let Some(parent) = draft.snapshot() {
            clones.entry(parent).or_default().push(id);
        }
    }
    let damaged: BTreeSet<BlobId> = blobs.damaged.iter().map(|damaged| damaged.id).collect();
    for (snapshot, removal, other) in marked {
        pace.spend(1).await;
        let own_clones = clones.get(&snapshot).map_or(&[][..], Vec::as_slice);
        let unresolved = match () {
            () if other == snapshot => Some("the marker names the snapshot itself"),
            () if damaged.contains(&other) => Some("the blob that the marker names is damaged"),
            () if !blobs.drafts.contains_key(&other) => Some("the blob that the marker names is not there"),
            () if !own_clones.is_empty() && !own_clones.contains(&other) => {
                Some("other blobs than the one that the marker names are clones of it")
            }
            () => None,
        };
        if let Some(why) = unresolved {
            resolution.unresolved.push(HalfDone { snapshot, removal, other, why });
        } else if own_clones.contains(&other) {
            keep(blobs, snapshot, removal, other, resolution);
        } else if let Some(draft) = blobs.drafts.remove(&snapshot) {
            let reason = match removal {
                true => RepairReason::FinishSnapshotRemoval { snapshot, clone: other },
                false => RepairReason::DropUnfinishedSnapshot { snapshot, original: other },
            };
            resolution.removed.push((snapshot, draft, reason));
        }
    }
}

/// Keeps a snapshot that the other blob needs: removes the markers, and makes it read-only like every
/// snapshot.
fn keep(blobs: &mut Blobs, snapshot: BlobId, removal: bool, other: BlobId, resolution: &mut Resolution) {
    let Some(draft) = blobs.drafts.get_mut(&snapshot) else { return };
    draft.metadata.remove_internal(internal::SNAPSHOT_PENDING_REMOVAL);
    draft.metadata.remove_internal(internal::SNAPSHOT_IN_PROGRESS);
    draft.metadata.flags.data_read_only |= Flags::READ_ONLY;
    let reason = match removal {
        true => RepairReason::KeepSnapshot { snapshot, clone: other },
        false => RepairReason::FinishSnapshot { snapshot, original: other },
    };
    resolution.rewrites.push(rewrite_chain(snapshot, reason));
}

/// The clusters and pages that the blobs' maps name.
struct Named {
    clusters: Bitmap,
    /// Clusters named in more than one place, including all clusters of an extent page that two blobs name.
    twice: Bitmap,
    /// Extent pages that more than one blob names.
    pages_twice: Bitmap,
}

impl Named {
    async fn of(geometry: &Geometry, drafts: &BTreeMap<BlobId, Draft>, pace: &Pace) -> Named {
        let total = geometry.total_clusters();
        let mut named = Named {
            clusters: Bitmap::new(total),
            twice: Bitmap::new(total),
            pages_twice: Bitmap::new(geometry.md_pages()),
        };
        let mut pages_once = Bitmap::new(geometry.md_pages());
        for draft in drafts.values() {
            for leaf in draft.metadata.map.leaves() {
                pace.spend(1).await;
                let shared = leaf.page.is_some_and(|page| !pages_once.set(page.0));
                // A shared page is reported once.
                if shared && !leaf.page.is_some_and(|page| named.pages_twice.set(page.0)) {
                    continue;
                }
                let pieces = leaf.clusters.pieces();
                pieces.for_each(|piece| named.add(piece.cluster, piece.length.into(), shared));
            }
        }
        named
    }

    fn add(&mut self, cluster: u32, count: u32, shared: bool) {
        if !shared && self.clusters.set_clear_range(cluster, count) {
            return;
        }
        for cluster in cluster..cluster + count {
            if !self.clusters.set(cluster) || shared {
                self.twice.set(cluster);
            }
        }
    }
}

/// Clears entries of a clone that equal its parent's at the same place.
async fn unshare(blobs: &mut Blobs, twice: &Bitmap, resolution: &mut Resolution, pace: &Pace) {
    let pairs: Vec<(BlobId, BlobId)> =
        blobs.drafts.iter().filter_map(|(&id, draft)| Some((id, draft.snapshot()?))).collect();
    let mut unshared = Vec::new();
    for (clone, parent) in pairs {
        let (Some(draft), Some(above)) = (blobs.drafts.get(&clone), blobs.drafts.get(&parent)) else {
            continue;
        };
        let (own, above) = (&draft.metadata.map, &above.metadata.map);
        pace.spend(1 + own.leaves().len() as u32).await;
        let shared: Vec<(u64, ClusterIdx)> = own
            .allocated_from(0)
            .filter(|&(index, cluster)| twice.get(cluster.0) && above.get(index) == Some(cluster))
            .collect();
        if shared.is_empty() {
            continue;
        }
        let slots = |map: &ClusterMap| map.extent_pages().collect::<BTreeMap<_, _>>();
        let (own_pages, above_pages) = (slots(own), slots(above));
        let per_page = u64::from(CLUSTERS_PER_EXTENT_PAGE);
        let touched: BTreeSet<u32> = shared.iter().map(|&(index, _)| (index / per_page) as u32).collect();
        // A page that the parent also has stays the parent's: the clone has none in that slot any more.
        let dropped: Vec<u32> = touched
            .iter()
            .copied()
            .filter(|slot| own_pages.contains_key(slot) && own_pages.get(slot) == above_pages.get(slot))
            .collect();
        let Some(draft) = blobs.drafts.get_mut(&clone) else { continue };
        let map = &mut draft.metadata.map;
        shared.iter().for_each(|&(index, _)| map.set(index, None));
        dropped.iter().for_each(|&slot| map.drop_slot(slot));
        let chain = !dropped.is_empty() || !map.is_table();
        let slots = match map.is_table() {
            false => BTreeSet::new(),
            true => touched.into_iter().filter(|slot| !dropped.contains(slot)).collect(),
        };
        let clusters = shared.into_iter().map(|(_, cluster)| cluster).collect();
        let reason = RepairReason::UnshareClusters { clone, clusters };
        unshared.push(Rewrite { blob: clone, reason, chain, slots });
    }
    // Before the markers are removed: if interrupted in between, the next load finds the marker and does the
    // rest.
    resolution.rewrites.splice(0..0, unshared);
}
