//! Turns pages into blobs: follows every chain, checks every rule, sets damaged blobs aside.

use super::halfdone;
use super::pace::Pace;
use super::records::{Bad, Record, Records};
use crate::bitmap::Bitmap;
use crate::chain::{ChainDecoder, ExtentPage, ExtentSlot, MapShape, Parts};
use crate::cluster_map::{CLUSTERS_PER_EXTENT_PAGE, ClusterMap, Leaf};
use crate::descriptor::Descriptor;
use crate::entries::Entries;
use crate::error::{FormatError, Place, Problem};
use crate::geometry::Geometry;
use crate::ids::{BlobId, ClusterIdx, PageIdx};
use crate::mask::{self, MaskKind};
use crate::metadata::{BlobMetadata, Parent, internal};
use crate::store::DamagedBlob;
use std::collections::{BTreeMap, BTreeSet};

/// A blob according to its pages, before half-done operations are resolved.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) metadata: BlobMetadata,
    pub(super) chain: Vec<PageIdx>,
    pub(super) parent: Option<Parent>,
    pub(super) unknown: Vec<(Place, u8)>,
    pub(super) resize: HalfDoneResize,
}

/// The writes left over from an interrupted resize.
#[derive(Debug, Default)]
pub(super) struct HalfDoneResize {
    /// The size was cut to that of its last extent page; the chain still has the old one.
    pub(super) chain: bool,
    /// Extent pages after the new end, which the chain still names: not free until the chain is written.
    pub(super) behind: Vec<PageIdx>,
    /// Slots whose extent pages name more clusters than the blob has: those beyond its end are free.
    pub(super) slots: BTreeSet<u32>,
    /// The clusters named there.
    pub(super) beyond: Vec<ClusterIdx>,
}

impl Draft {
    /// The snapshot in this store whose clone it is.
    pub(super) fn snapshot(&self) -> Option<BlobId> {
        match self.parent {
            Some(Parent::Snapshot(id)) => Some(id),
            _ => None,
        }
    }
}

/// All blobs of a store, good and damaged.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    pub(super) drafts: BTreeMap<BlobId, Draft>,
    pub(super) damaged: Vec<DamagedBlob>,
    /// Blobs with the marker of a snapshot operation.
    pub(super) marked: Vec<BlobId>,
}

/// What is known about a store before its blobs are read.
#[derive(Clone, Debug)]
pub(super) struct Left {
    /// True if it was unloaded cleanly: then no resize can be half done.
    pub(super) in_order: bool,
    /// True if no mask lists the roots: then any page that no program writes in its place may be one.
    pub(super) unlisted: bool,
    /// Its roots at the last clean unload, if known and useful.
    pub(super) old_ids: Option<Bitmap>,
}

/// Reads the blobs with these roots.
pub(super) async fn assemble(
    geometry: &Geometry,
    records: &Records,
    roots: &[PageIdx],
    left: &Left,
    pace: &Pace,
) -> Blobs {
    let mut assembler = Assembler {
        geometry,
        records,
        in_order: left.in_order,
        pace,
        claimed: Bitmap::new(geometry.md_pages()),
        rle_budget: 4 * u64::from(geometry.total_clusters()),
        page_budget: 4 * u64::from(geometry.md_pages()),
    };
    // A chain that runs into another blob's root damages its own blob, not that one.
    roots.iter().for_each(|root| {
        assembler.claimed.set(root.0);
    });
    let mut blobs = Blobs::default();
    for &root in roots {
        let id = BlobId::from_page(root);
        match assembler.blob(root).await {
            Ok(draft) => {
                blobs.marked.extend(halfdone::marker(&draft).map(|_| id));
                blobs.drafts.insert(id, draft);
            }
            Err(damage) => blobs.damaged.push(damage.of(id, geometry, records)),
        }
    }
    if left.unlisted {
        assembler.strange(&mut blobs, left.old_ids.as_ref()).await;
    }
    blobs
}

/// Why a blob cannot be read, and what was read of it.
struct Damage {
    error: FormatError,
    name: Option<String>,
    pages: Vec<PageIdx>,
    whole_chain: bool,
}

impl Damage {
    /// The blob with this id, damaged.
    fn of(self, id: BlobId, geometry: &Geometry, records: &Records) -> DamagedBlob {
        let Damage { error, name, pages, whole_chain } = self;
        let (mut named_pages, mut named_blobs) = (Vec::new(), Vec::new());
        for &index in &pages {
            let Some(Record::Good(stored)) = records.get(index) else { continue };
            let page = stored.page();
            named_pages.extend(page.next());
            for descriptor in page.descriptors(index, 0).flatten() {
                match descriptor {
                    Descriptor::ExtentTable { entries, .. } => {
                        named_pages.extend(entries.iter().filter(|one| one.0 != 0).map(|one| PageIdx(one.0)));
                    }
                    Descriptor::InternalXattr(xattr) => {
                        named_blobs.extend(<[u8; 8]>::try_from(xattr.value).map(id_of));
                    }
                    _ => {}
                }
            }
        }
        named_pages.retain(|page| page.0 < geometry.md_pages());
        DamagedBlob { id, errors: vec![error], name, pages, named_pages, named_blobs, whole_chain }
    }
}

fn id_of(bytes: [u8; 8]) -> BlobId {
    BlobId::from_raw(u64::from_le_bytes(bytes))
}

struct Assembler<'a> {
    geometry: &'a Geometry,
    records: &'a Records,
    in_order: bool,
    pace: &'a Pace,
    claimed: Bitmap,
    /// Remaining clusters that run-length lists may name, and extent pages that tables may: a healthy store
    /// names each once, a half-done snapshot twice. Bounds the cost of hostile images by their size.
    rle_budget: u64,
    page_budget: u64,
}

fn spend(budget: u64, cost: u64, root: Place) -> Result<u64, FormatError> {
    let rule = "names clusters or extent pages that other blobs have, many times over";
    budget.checked_sub(cost).ok_or_else(|| Problem::Rule(rule.into()).at(root))
}

impl Assembler<'_> {
    async fn blob(&mut self, root: PageIdx) -> Result<Draft, Box<Damage>> {
        let mut chain = Vec::new();
        let mut decoder = ChainDecoder::new(self.geometry);
        if let Err(error) = self.follow(root, &mut decoder, &mut chain).await {
            let name = decoder.name();
            return Err(Box::new(Damage { error, name, pages: chain, whole_chain: false }));
        }
        let place = self.geometry.page_place(root);
        let finished = match decoder.finish(place) {
            Ok(mut parts) => {
                let unknown = std::mem::take(&mut parts.unknown);
                let complete = self.complete(parts, place).await;
                complete.map(|(metadata, resize)| (metadata, resize, unknown))
            }
            Err(error) => Err(error),
        };
        let damage = |error, pages: Vec<PageIdx>| {
            let name = self.name(&pages);
            Box::new(Damage { error, name, pages, whole_chain: true })
        };
        let (metadata, resize, unknown) = match finished {
            Ok(complete) => complete,
            Err(error) => return Err(damage(error, chain)),
        };
        match parent_of(&metadata, place) {
            Ok(parent) => Ok(Draft { metadata, chain, parent, unknown, resize }),
            Err(error) => {
                let mut damage = damage(error, chain);
                damage.pages.extend(metadata.map.extent_pages().map(|(_, page)| page));
                Err(damage)
            }
        }
    }

    /// Reports damaged blobs for pages that may be roots and that no blob names.
    async fn strange(&mut self, blobs: &mut Blobs, old_ids: Option<&Bitmap>) {
        let mut named = self.claimed.clone();
        for (_, page) in blobs.drafts.values().flat_map(|draft| draft.metadata.map.extent_pages()) {
            named.set(page.0);
        }
        for draft in blobs.drafts.values() {
            draft.resize.behind.iter().for_each(|page| {
                named.set(page.0);
            });
        }
        for page in blobs.damaged.iter().flat_map(|damaged| &damaged.named_pages) {
            named.set(page.0);
        }
        for root in self.records.strange().filter(|page| !named.get(page.0)) {
            if let Err(damage) = self.blob(root).await {
                let mut damaged = damage.of(BlobId::from_page(root), self.geometry, self.records);
                if old_ids.is_some_and(|ids| ids.get(root.0)) {
                    let rule = format!("had a blob at page {root} when the store was last left in order");
                    let place = mask::place(MaskKind::UsedBlobIds, self.geometry);
                    damaged.errors.push(Problem::Rule(rule).at(place));
                }
                blobs.damaged.push(damaged);
            }
        }
        blobs.damaged.sort_by_key(|damaged| damaged.id);
    }

    /// The name in a chain whose pages are whole.
    fn name(&self, chain: &[PageIdx]) -> Option<String> {
        let mut decoder = ChainDecoder::new(self.geometry);
        for &index in chain {
            if let Some(Record::Good(stored)) = self.records.get(index) {
                decoder.page(&stored.page(), index).ok()?;
            }
        }
        decoder.name()
    }

    /// Takes every page of a chain; each page is claimed once, so the walk ends.
    async fn follow(
        &mut self,
        root: PageIdx,
        decoder: &mut ChainDecoder<'_>,
        chain: &mut Vec<PageIdx>,
    ) -> Result<(), FormatError> {
        let id = BlobId::from_page(root);
        let mut next = Some(root);
        while let Some(index) = next {
            let sequence = chain.len() as u32;
            if index.0 >= self.geometry.md_pages() {
                let expected = format!("a page index below {:#x}", self.geometry.md_pages());
                let from = self.geometry.page_place(*chain.last().unwrap_or(&root));
                return Err(Problem::field("next", index.0, expected).at(from));
            }
            let place = self.geometry.page_place(index);
            if sequence > 0 && !self.claimed.set(index.0) {
                return Err(Problem::Claimed(id).at(place));
            }
            let page = match self.records.get(index) {
                Some(Record::Good(stored)) => stored.page(),
                Some(Record::Bad(bad)) => return Err(bad_page(bad).at(place)),
                None => {
                    return Err(Problem::Empty(format!("a page of blob {id}")).at(place));
                }
            };
            if page.id() != id {
                return Err(Problem::field("id", page.id().raw(), id.to_string()).at(place));
            }
            if page.sequence() != sequence {
                return Err(
                    Problem::field("sequence_num", page.sequence(), format!("{sequence:#x}")).at(place)
                );
            }
            chain.push(index);
            decoder.page(&page, index)?;
            self.pace.spend(1).await;
            next = page.next();
        }
        Ok(())
    }

    /// Reads the extent pages of a table. Also returns where they do not fit the blob's size.
    async fn complete(
        &mut self,
        parts: Parts,
        root: Place,
    ) -> Result<(BlobMetadata, HalfDoneResize), FormatError> {
        let Parts { flags, xattrs, internal, map, .. } = parts;
        let (mut cut, mut resize) = (None, HalfDoneResize::default());
        let map = match map {
            MapShape::Rle(map) => {
                self.rle_budget = spend(self.rle_budget, map.allocated(), root)?;
                map
            }
            MapShape::Table { num_clusters, slots } => {
                self.page_budget = spend(self.page_budget, slots.len() as u64, root)?;
                let mut table = ClusterMap::table_of(num_clusters, slots.len());
                for slot in slots {
                    let left = num_clusters - u64::from(slot.slot) * u64::from(CLUSTERS_PER_EXTENT_PAGE);
                    let wanted = left.min(u64::from(CLUSTERS_PER_EXTENT_PAGE)) as usize;
                    let (clusters, beyond) = self.extent(slot, wanted, flags.thin())?;
                    if let Some(beyond) = beyond {
                        resize.slots.insert(slot.slot);
                        resize.beyond.extend(beyond);
                    }
                    if clusters.len() < wanted && self.in_order {
                        let found = clusters.len();
                        let rule = format!("describes {found} clusters, the blob has {wanted} there");
                        return Err(Problem::Rule(rule).at(self.geometry.page_place(slot.page)));
                    }
                    self.pace.spend(1).await;
                    if clusters.len() < wanted
                        && cut.replace(num_clusters - left + clusters.len() as u64).is_some()
                    {
                        let rule = "two of its extent pages describe fewer clusters than they should";
                        return Err(Problem::Rule(rule.into()).at(root));
                    }
                    table.push_leaf(Leaf { slot: slot.slot, page: Some(slot.page), clusters });
                }
                table
            }
        };
        let mut metadata = BlobMetadata { flags, xattrs, internal, map };
        // SPDK shortens the last remaining extent page before the chain gets the new size.
        if let Some(clusters) = cut {
            let before: Vec<PageIdx> = metadata.map.extent_pages().map(|(_, page)| page).collect();
            metadata.map.resize(clusters);
            let stay = metadata.map.extent_pages().count();
            resize.behind = before.into_iter().skip(stay).collect();
            resize.chain = true;
        }
        Ok((metadata, resize))
    }

    /// The clusters of an extent page that a blob names in this slot, and those after them if the page describes
    /// more: clusters beyond the blob's range are ignored.
    fn extent(
        &self,
        slot: ExtentSlot,
        wanted: usize,
        thin: bool,
    ) -> Result<(Entries, Option<Vec<ClusterIdx>>), FormatError> {
        let place = self.geometry.page_place(slot.page);
        let page = read_extent(self.geometry, self.records, slot.page)?;
        let start = slot.slot * CLUSTERS_PER_EXTENT_PAGE;
        if page.start_cluster != start {
            let expected = format!("{start:#x} in slot {} of the extent table", slot.slot);
            return Err(Problem::field("start_cluster_idx", page.start_cluster, expected).at(place));
        }
        let mut clusters = page.clusters;
        let beyond = (clusters.len() > wanted).then(|| {
            let words = clusters.to_vec().split_off(wanted).into_iter();
            clusters.resize(wanted);
            clusters.compact();
            words.filter(|&cluster| cluster != 0).map(ClusterIdx).collect()
        });
        if !thin && clusters.allocated() < clusters.len() {
            return Err(Problem::Rule("clusters are missing, but the blob is not thin".into()).at(place));
        }
        Ok((clusters, beyond))
    }
}

fn read_extent(geometry: &Geometry, records: &Records, index: PageIdx) -> Result<ExtentPage, FormatError> {
    let place = geometry.page_place(index);
    match records.get(index) {
        Some(Record::Good(stored)) => stored.extents(index, geometry),
        Some(Record::Bad(bad)) => Err(bad_page(bad).at(place)),
        None => Err(Problem::Empty("an extent page".into()).at(place)),
    }
}

pub(super) fn bad_page(bad: &Bad) -> Problem {
    bad.crcs.map_or(Problem::Unreadable, |(stored, computed)| Problem::Crc { stored, computed })
}

/// The parent of a blob; an error if it cannot be determined.
fn parent_of(metadata: &BlobMetadata, root: Place) -> Result<Option<Parent>, FormatError> {
    let rule = |rule: &str| Err(Problem::Rule(rule.into()).at(root));
    let holds = |name: &[u8]| metadata.internal.get(name).is_some();
    match metadata.parent() {
        Some(Parent::External(id)) if id.is_empty() => {
            rule("is a clone of an external snapshot, but its EXTSNAP xattr is empty")
        }
        None if metadata.flags.external_snapshot() => {
            rule("is a clone of an external snapshot, but its EXTSNAP xattr is missing")
        }
        None if metadata.flags.thin() && holds(internal::SNAPSHOT) => {
            rule("its SNAP xattr is not 8 bytes long")
        }
        parent => Ok(parent),
    }
}
