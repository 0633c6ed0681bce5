//! The last stage of a load: determines the state of the store, and the repairs.

use super::assemble::{self, Blobs, Draft, Left};
use super::halfdone::{self, Resolution, Rewrite};
use super::pace::Pace;
use super::records::{Record, Records};
use super::scan::Scan;
use super::torn;
use crate::bitmap::Bitmap;
use crate::chain;
use crate::change::Change;
use crate::geometry::Geometry;
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::metadata::ClearMethod;
use crate::page::Page;
use crate::repair::writes::{self, Pages};
use crate::repair::{Repair, RepairReason, SectorSums};
use crate::store::{AllocationBlocked, Blob, DiskMasks, Store};
use crate::super_block::SuperBlock;
use std::collections::BTreeMap;

/// Approximate work of [`build`]: each page is visited when its blob is assembled, when clusters are counted,
/// and when it is dropped.
pub(super) fn units(scan: &Scan) -> u64 {
    3 * scan.records.count()
}

pub(super) async fn build(mut scan: Scan, pace: &Pace) -> Store {
    let recovered = scan.recovered();
    let left = Left { in_order: scan.in_order(), unlisted: scan.unlisted(), old_ids: scan.old_ids() };
    let copies = match left.in_order {
        // A left-over copy is older than its page.
        true => torn::Copies::default(),
        false => torn::restore_pages(&scan.found.geometry, &mut scan.records),
    };
    let roots: Vec<PageIdx> = match &scan.masks {
        Some(masks) => masks.used_blob_ids.iter().map(PageIdx).collect(),
        None => scan.records.roots(),
    };
    let unlisted = match &scan.masks {
        Some(masks) => unlisted(&scan.records, masks),
        None => Vec::new(),
    };
    let (geometry, masks) = (&scan.found.geometry, scan.masks.as_ref());
    let mut blobs = assemble::assemble(geometry, &scan.records, &roots, &left, pace).await;
    let resolution = halfdone::resolve(geometry, &mut blobs, &left, masks, pace).await;
    let mut usage = Usage::of(geometry, &blobs, masks, &resolution.named, pace).await;
    usage.release(geometry, &blobs, &resolution, pace).await;
    let blocked = blocked(&blobs, &resolution, &scan.records, recovered, &unlisted, pace).await;
    let mut outcome = Outcome { scan, blobs, resolution, usage };
    let repairs = outcome.repairs(copies, blocked.is_some());
    let Outcome { mut scan, blobs, resolution, usage } = outcome;
    while scan.records.drop_some() {
        pace.spend(32).await;
    }
    Store {
        super_block: scan.found.block,
        recovered,
        damaged: blobs.damaged,
        blobs: related(blobs.drafts, pace).await,
        used_pages: usage.pages,
        used_clusters: usage.clusters,
        used_blob_ids: usage.blob_ids,
        allocation_blocked: blocked,
        disk_masks: scan.masks,
        mask_errors: scan.mask_errors,
        unlisted,
        half_done: resolution.unresolved,
        repairs,
        geometry: scan.found.geometry,
    }
}

/// What was found, before it is put in order.
struct Outcome {
    scan: Scan,
    blobs: Blobs,
    resolution: Resolution,
    usage: Usage,
}

impl Outcome {
    /// What puts the store in order, first to last. While allocation is `blocked`, pages and clusters that look free may
    /// be in use: nothing is freed or allocated then.
    fn repairs(&mut self, copies: torn::Copies, blocked: bool) -> Vec<Repair> {
        let found = &self.scan.found;
        let mut repairs = super_block_repairs(&found.block, &found.geometry, found.torn);
        // A page that looks like a copy and that a blob names is that blob's.
        let is_used = |page: PageIdx| self.usage.pages.get(page.0);
        let is_free = |repair: &Repair| !torn::forgets_any(&found.geometry, repair, is_used);
        repairs.extend(copies.repairs.into_iter().filter(is_free));
        let useless: Vec<Repair> = copies.useless.into_iter().filter(is_free).collect();
        for (_, draft, reason) in &self.resolution.removed {
            let changes = match blocked {
                true => Vec::new(),
                false => removal(&found.geometry, draft, &self.usage, self.scan.small_blocks),
            };
            repairs.push(Repair { reason: reason.clone(), changes });
        }
        repairs.extend(self.rewrites(blocked));
        let Outcome { scan, usage, .. } = self;
        if !blocked {
            repairs.extend(useless);
            let is_used = |page: PageIdx| usage.pages.get(page.0);
            repairs.extend(torn::leftovers(&scan.found.geometry, &scan.records, is_used));
        }
        mark_dirty_first(&scan.found.block, &scan.found.geometry, &mut repairs);
        repairs
    }

    /// The repairs that write blobs' metadata; without changes where they must wait.
    fn rewrites(&mut self, blocked: bool) -> Vec<Repair> {
        let Outcome { scan, blobs, resolution, usage } = self;
        let geometry = &scan.found.geometry;
        let (mut repairs, mut shortened) = (Vec::new(), Vec::new());
        for rewrite in &resolution.rewrites {
            let pages = Pages { used: &mut usage.pages, whole: scan.whole_pages };
            let changes = match blocked {
                true => None,
                false => rewrite_blob(geometry, blobs, rewrite, pages, &mut scan.records),
            };
            let changes = changes.unwrap_or_default();
            if rewrite.chain && !changes.is_empty() {
                shortened.push(rewrite.blob);
            }
            repairs.push(Repair { reason: rewrite.reason.clone(), changes });
        }
        let mut changes = free_behind(geometry, blobs, &shortened, &mut usage.pages);
        repairs.last_mut().into_iter().for_each(|repair| repair.changes.append(&mut changes));
        repairs
    }
}

fn unlisted(records: &Records, masks: &DiskMasks) -> Vec<BlobId> {
    let roots = records.roots().into_iter();
    roots.filter(|root| !masks.used_blob_ids.get(root.0)).map(BlobId::from_page).collect()
}

/// The pages and clusters in use.
struct Usage {
    pages: Bitmap,
    clusters: Bitmap,
    blob_ids: Bitmap,
}

impl Usage {
    /// The union of masks and metadata: what only a clean store's masks name is leaked, but not free.
    async fn of(
        geometry: &Geometry,
        blobs: &Blobs,
        masks: Option<&DiskMasks>,
        named: &Bitmap,
        pace: &Pace,
    ) -> Usage {
        let mut usage = match masks.cloned() {
            Some(DiskMasks { used_pages, used_clusters, used_blob_ids }) => {
                Usage { pages: used_pages, clusters: used_clusters, blob_ids: used_blob_ids }
            }
            None => Usage {
                pages: Bitmap::new(geometry.md_pages()),
                clusters: Bitmap::new(geometry.total_clusters()),
                blob_ids: Bitmap::new(geometry.md_pages()),
            },
        };
        for cluster in 0..geometry.metadata_clusters() {
            usage.clusters.set(cluster);
        }
        usage.clusters.union(named);
        for (&id, draft) in &blobs.drafts {
            usage.root(id);
            for page in draft.pages().chain(draft.resize.behind.iter().copied()) {
                usage.pages.set(page.0);
            }
            pace.spend(1).await;
        }
        for damaged in &blobs.damaged {
            usage.root(damaged.id);
            for page in damaged.pages.iter().chain(&damaged.named_pages) {
                usage.pages.set(page.0);
            }
        }
        usage
    }

    fn root(&mut self, id: BlobId) {
        if let Some(root) = id.root_page() {
            self.pages.set(root.0);
            self.blob_ids.set(root.0);
        }
    }

    /// Frees what only removed blobs had.
    async fn release(&mut self, geometry: &Geometry, blobs: &Blobs, resolution: &Resolution, pace: &Pace) {
        let Resolution { removed, named, .. } = resolution;
        if removed.is_empty() {
            return;
        }
        let kept = Usage::of(geometry, blobs, None, named, pace).await;
        for (_, draft, _) in removed {
            draft.chain.first().map(|root| self.blob_ids.clear(root.0));
            for page in draft.pages().filter(|page| !kept.pages.get(page.0)) {
                self.pages.clear(page.0);
            }
            for cluster in draft.clusters().filter(|cluster| !kept.clusters.get(cluster.0)) {
                self.clusters.clear(cluster.0);
            }
        }
    }
}

impl Draft {
    /// The pages of its chain and its extent pages.
    fn pages(&self) -> impl Iterator<Item = PageIdx> + '_ {
        self.chain.iter().copied().chain(self.metadata.map.extent_pages().map(|(_, page)| page))
    }

    /// The clusters of the device that its map names.
    fn clusters(&self) -> impl Iterator<Item = ClusterIdx> + '_ {
        self.metadata.map.runs().flat_map(|run| run.clusters().map(ClusterIdx))
    }
}

/// Deletes a blob: its root first, so that a crash cannot leave half a blob, and of the root the sector that
/// makes it one, so that it cannot be torn.
fn removal(geometry: &Geometry, draft: &Draft, usage: &Usage, small_blocks: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut pages = draft.pages().filter(|page| !usage.pages.get(page.0));
    if let Some(root) = pages.next() {
        if small_blocks {
            changes.extend([Page::clear_last_sector(root, geometry), Change::Flush]);
        }
        changes.extend([Page::clear(root, geometry), Change::Flush]);
    }
    changes.extend(pages.map(|page| Page::clear(page, geometry)));
    let freed = draft.clusters().filter(|cluster| !usage.clusters.get(cluster.0));
    for (offset, len) in joined(geometry, freed) {
        match draft.metadata.flags.clear_method() {
            ClearMethod::Default | ClearMethod::Unmap => changes.push(Change::Unmap { offset, len }),
            ClearMethod::WriteZeroes => changes.push(Change::Zero { offset, len }),
            ClearMethod::None => {}
        }
    }
    changes.push(Change::Flush);
    changes
}

/// Byte ranges of clusters, neighbours joined.
fn joined(geometry: &Geometry, clusters: impl Iterator<Item = ClusterIdx>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for cluster in clusters {
        let (offset, size) = (geometry.cluster_offset(cluster), u64::from(geometry.cluster_size()));
        match ranges.last_mut() {
            Some((start, len)) if *start + *len == offset => *len += size,
            _ => ranges.push((offset, size)),
        }
    }
    ranges
}

/// Writes the changes of a blob; `None` if no metadata page is free for it.
fn rewrite_blob(
    geometry: &Geometry,
    blobs: &mut Blobs,
    rewrite: &Rewrite,
    mut pages: Pages<'_>,
    records: &mut Records,
) -> Option<Vec<Change>> {
    let draft = blobs.drafts.get_mut(&rewrite.blob)?;
    let before = |records: &Records, page| match records.get(page) {
        Some(Record::Good(stored)) => Some(SectorSums::of(&stored.page())),
        _ => None,
    };
    let mut changes = Vec::new();
    for leaf in draft.metadata.map.leaves().iter().filter(|leaf| rewrite.slots.contains(&leaf.slot)) {
        let first = u32::try_from(leaf.first_cluster()).ok()?;
        let page = chain::extent_page(rewrite.blob, first, &leaf.clusters.to_vec());
        let sums = before(records, leaf.page?)?;
        changes.extend(writes::rewrite_in_place(geometry, leaf.page?, &page, sums, &pages)?);
        records.restore(leaf.page?, &page);
    }
    if rewrite.chain {
        let &root = draft.chain.first()?;
        let sums = before(records, root)?;
        let written =
            writes::rewrite_chain(geometry, rewrite.blob, &draft.metadata, &draft.chain, sums, &mut pages)?;
        changes.extend(written.changes);
        records.restore(root, &written.root);
        draft.chain = written.at;
    }
    Some(changes)
}

/// Frees the extent pages after the ends of blobs whose shrinking was interrupted, and whose chains were
/// rewritten without them.
fn free_behind(
    geometry: &Geometry,
    blobs: &Blobs,
    written: &[BlobId],
    used_pages: &mut Bitmap,
) -> Vec<Change> {
    let drafts = || written.iter().filter_map(|id| blobs.drafts.get(id));
    let behind = || drafts().flat_map(|draft| draft.resize.behind.iter().copied());
    if behind().next().is_none() {
        return Vec::new();
    }
    let mut named = Bitmap::new(geometry.md_pages());
    for page in blobs.drafts.values().flat_map(Draft::pages) {
        named.set(page.0);
    }
    for page in blobs.damaged.iter().flat_map(|damaged| damaged.pages.iter().chain(&damaged.named_pages)) {
        named.set(page.0);
    }
    let free: Vec<PageIdx> = behind().filter(|page| !named.get(page.0) && used_pages.clear(page.0)).collect();
    free.into_iter().map(|page| Page::clear(page, geometry)).collect()
}

async fn blocked(
    blobs: &Blobs,
    resolution: &Resolution,
    records: &Records,
    recovered: bool,
    unlisted: &[BlobId],
    pace: &Pace,
) -> Option<AllocationBlocked> {
    let mut blocked = AllocationBlocked {
        clusters: resolution.conflicts.clone(),
        extent_pages: resolution.shared_pages.clone(),
        unlisted: unlisted.to_vec(),
        ..Default::default()
    };
    // The masks of a clean store show what a damaged blob uses; without masks nothing does.
    if recovered {
        blocked.blobs = blobs.damaged.iter().map(|damaged| damaged.id).collect();
        for parent in blobs.drafts.values().filter_map(Draft::snapshot) {
            blocked.blobs.extend((!blobs.drafts.contains_key(&parent)).then_some(parent));
            pace.spend(1).await;
        }
        blocked.blobs.sort();
        blocked.blobs.dedup();
        let unreadable = records.bad().filter(|(_, bad)| bad.crcs.is_none());
        blocked.pages = unreadable.map(|(index, _)| index).collect();
        let missing = |id: &BlobId| !blobs.drafts.contains_key(id) && !blocked.blobs.contains(id);
        blocked.marked = resolution.unresolved.iter().map(|half| half.other).filter(missing).collect();
    }
    (blocked != AllocationBlocked::default()).then_some(blocked)
}

fn super_block_repairs(block: &SuperBlock, geometry: &Geometry, torn: bool) -> Vec<Repair> {
    match torn {
        true => vec![write_super(block, geometry, RepairReason::TornSuperBlock)],
        false => Vec::new(),
    }
}

/// A store marked clean must be marked dirty before any write.
fn mark_dirty_first(block: &SuperBlock, geometry: &Geometry, repairs: &mut Vec<Repair>) {
    if block.clean && repairs.iter().any(|repair| !repair.changes.is_empty()) {
        let dirty = SuperBlock { clean: false, ..block.clone() };
        repairs.insert(0, write_super(&dirty, geometry, RepairReason::MarkDirty));
    }
}

fn write_super(block: &SuperBlock, geometry: &Geometry, reason: RepairReason) -> Repair {
    Repair { reason, changes: vec![block.write(geometry), Change::Flush] }
}

/// The blobs with their clones.
async fn related(mut drafts: BTreeMap<BlobId, Draft>, pace: &Pace) -> BTreeMap<BlobId, Blob> {
    let mut clones: BTreeMap<BlobId, Vec<BlobId>> = BTreeMap::new();
    for (&id, draft) in &drafts {
        if let Some(parent) = draft.snapshot() {
            clones.entry(parent).or_default().push(id);
        }
        pace.spend(1).await;
    }
    let mut blobs = BTreeMap::new();
    while let Some((id, draft)) = drafts.pop_first() {
        let Draft { metadata, chain, parent, unknown, .. } = draft;
        let clones = clones.remove(&id).unwrap_or_default();
        blobs.insert(id, Blob { id, metadata, chain, parent, clones, unknown_descriptors: unknown });
        pace.spend(1).await;
    }
    blobs
}
