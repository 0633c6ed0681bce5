//! Decodes pages to values, checking every rule of the format.

use crate::cluster_map::{CLUSTERS_PER_EXTENT_PAGE, ClusterMap, MAX_CLUSTERS};
use crate::descriptor::{self, Descriptor};
use crate::entries::Entries;
use crate::error::{FormatError, Place, Problem};
use crate::geometry::Geometry;
use crate::ids::{ClusterIdx, PageIdx};
use crate::metadata::{Flags, Xattrs};
use crate::page::Page;

/// Bits of `invalid` that this crate knows.
const KNOWN_INVALID: u64 =
    Flags::THIN | Flags::INTERNAL_XATTR | Flags::EXTENT_TABLE | Flags::EXTERNAL_SNAPSHOT;

/// An entry of an extent table that names a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentSlot {
    /// Slot of the table.
    pub slot: u32,
    /// The extent page.
    pub page: PageIdx,
}

/// The cluster map, as far as the chain itself contains it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MapShape {
    /// Complete.
    Rle(ClusterMap),
    /// The extent pages are still to be read.
    Table {
        /// Clusters of the blob.
        num_clusters: u64,
        /// The slots that are not missing.
        slots: Vec<ExtentSlot>,
    },
}

/// The contents of a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Flags; none set if there is no such descriptor.
    pub flags: Flags,
    /// The user's xattrs.
    pub xattrs: Xattrs,
    /// The store's own xattrs.
    pub internal: Xattrs,
    /// The cluster map.
    pub map: MapShape,
    /// Types of descriptors that were skipped; SPDK's recovery refuses a store that has any.
    pub unknown: Vec<(Place, u8)>,
}

/// Takes the pages of one chain in order.
#[derive(Debug)]
pub struct ChainDecoder<'g> {
    geometry: &'g Geometry,
    flags: Flags,
    xattrs: Xattrs,
    internal: Xattrs,
    map: Option<MapShape>,
    table_slots: u64,
    /// Set if its map has unallocated clusters.
    unallocated: bool,
    /// Clusters named by its run-length list. Bounded by the number of clusters of the store, so that memory
    /// stays of the order of the store's masks.
    listed: u64,
    unknown: Vec<(Place, u8)>,
}

impl<'g> ChainDecoder<'g> {
    /// A decoder of one chain of a store of this geometry.
    pub fn new(geometry: &'g Geometry) -> ChainDecoder<'g> {
        ChainDecoder {
            geometry,
            flags: Flags::default(),
            xattrs: Xattrs::new(),
            internal: Xattrs::new(),
            map: None,
            table_slots: 0,
            unallocated: false,
            listed: 0,
            unknown: Vec::new(),
        }
    }

    /// Takes the next page. The caller checks CRC, owner and sequence.
    ///
    /// # Errors
    /// Names the descriptor and the rule it breaks. What was read before stays (see
    /// [`ChainDecoder::name`]).
    pub fn page(&mut self, page: &Page, index: PageIdx) -> Result<(), FormatError> {
        let mut descriptors = page.descriptors(index, self.geometry.page_offset(index));
        loop {
            let place = descriptors.place();
            match descriptors.next() {
                None => return Ok(()),
                Some(descriptor) => self.take(descriptor?, place).map_err(|problem| problem.at(place))?,
            }
        }
    }

    /// The `name` xattr, if it was read already.
    pub fn name(&self) -> Option<String> {
        crate::metadata::name_of(&self.xattrs).map(str::to_owned)
    }

    /// The end of the chain.
    ///
    /// # Errors
    /// The extent table does not describe as many clusters as its count.
    pub fn finish(self, root: Place) -> Result<Parts, FormatError> {
        // SPDK leaves out the table of a blob without clusters where it does not fit: the flag shows that it
        // has one.
        let mut map = self.map.unwrap_or_else(|| match self.flags.invalid & Flags::EXTENT_TABLE {
            0 => MapShape::Rle(ClusterMap::new_rle()),
            _ => MapShape::Table { num_clusters: 0, slots: Vec::new() },
        });
        if let MapShape::Rle(list) = &mut map {
            list.compact();
        }
        if let MapShape::Table { num_clusters, .. } = &map {
            let wanted = num_clusters.div_ceil(u64::from(CLUSTERS_PER_EXTENT_PAGE));
            if self.table_slots != wanted {
                let expected = format!("{wanted:#x} for {num_clusters} clusters");
                return Err(Problem::field("number of extent pages", self.table_slots, expected).at(root));
            }
        }
        let Self { flags, xattrs, internal, unknown, .. } = self;
        Ok(Parts { flags, xattrs, internal, map, unknown })
    }

    fn take(&mut self, descriptor: Descriptor<'_>, place: Place) -> Result<(), Problem> {
        match descriptor {
            Descriptor::Flags(flags) => {
                if flags.invalid & !KNOWN_INVALID != 0 {
                    let expected = format!("only bits of {KNOWN_INVALID:#x}: a newer version wrote this");
                    return Err(Problem::field("invalid_flags", flags.invalid, expected));
                }
                self.flags = flags;
                // The last flags count; whatever earlier ones allowed must still be allowed.
                if self.unallocated {
                    check_unallocated(&self.flags)?;
                }
            }
            Descriptor::Xattr(xattr) => self.xattrs.push(xattr.name, xattr.value),
            Descriptor::InternalXattr(xattr) => self.internal.push(xattr.name, xattr.value),
            Descriptor::ExtentRle(entries) => self.take_runs(entries)?,
            Descriptor::ExtentTable { num_clusters, entries } => self.take_table(num_clusters, entries)?,
            Descriptor::ExtentPage { .. } => {
                return Err(Problem::Rule("an extent page's descriptor stands in a blob's chain".into()));
            }
            Descriptor::Unknown { kind, .. } => self.unknown.push((place, kind)),
        }
        Ok(())
    }

    fn take_runs(&mut self, entries: descriptor::Entries<'_>) -> Result<(), Problem> {
        let list = match self.map.get_or_insert_with(|| MapShape::Rle(ClusterMap::new_rle())) {
            MapShape::Rle(list) => list,
            MapShape::Table { .. } => return Err(mixed()),
        };
        for (cluster, length) in entries.iter() {
            check_size(list.num_clusters() + u64::from(length))?;
            if cluster == 0 {
                check_unallocated(&self.flags)?;
                self.unallocated = true;
                list.push_run(None, length);
                continue;
            }
            let end = u64::from(cluster) + u64::from(length);
            if length > 0 {
                check_cluster(self.geometry, cluster)?;
            }
            if end > u64::from(self.geometry.total_clusters()) {
                let total = self.geometry.total_clusters();
                return Err(Problem::field("end of extent", end, format!("at most {total:#x}")));
            }
            self.listed += u64::from(length);
            if self.listed > u64::from(self.geometry.total_clusters()) {
                return Err(Problem::Rule("the blob names more clusters than the store has".into()));
            }
            list.push_run(Some(ClusterIdx(cluster)), length);
        }
        Ok(())
    }

    fn take_table(&mut self, clusters: u64, entries: descriptor::Entries<'_>) -> Result<(), Problem> {
        check_size(clusters)?;
        let fresh = || MapShape::Table { num_clusters: clusters, slots: Vec::new() };
        let slots = match self.map.get_or_insert_with(fresh) {
            MapShape::Table { num_clusters, slots } if *num_clusters == clusters => slots,
            MapShape::Table { num_clusters, .. } => {
                let expected = format!("{num_clusters:#x} as in the table's first descriptor");
                return Err(Problem::field("num_clusters", clusters, expected));
            }
            MapShape::Rle(_) => return Err(mixed()),
        };
        let end = clusters.div_ceil(u64::from(CLUSTERS_PER_EXTENT_PAGE));
        for (page, count) in entries.iter() {
            if page == 0 {
                check_unallocated(&self.flags)?;
                self.unallocated = true;
            } else {
                check_extent_page_entry(self.geometry, page, count)?;
                // Below `end`, which MAX_CLUSTERS keeps small; a longer table is refused right after.
                slots.push(ExtentSlot { slot: self.table_slots as u32, page: PageIdx(page) });
            }
            self.table_slots += u64::from(count);
            if self.table_slots > end {
                let expected = format!("{end:#x} for {clusters} clusters");
                return Err(Problem::field("number of extent pages", self.table_slots, expected));
            }
        }
        Ok(())
    }
}

fn mixed() -> Problem {
    Problem::Rule("the blob has both a run-length list and an extent table".into())
}

fn check_unallocated(flags: &Flags) -> Result<(), Problem> {
    if flags.thin() {
        return Ok(());
    }
    Err(Problem::Rule("clusters are missing, but the blob is not thin".into()))
}

fn check_cluster(geometry: &Geometry, cluster: u32) -> Result<(), Problem> {
    if geometry.is_data_cluster(cluster) {
        return Ok(());
    }
    let (first, total) = (geometry.metadata_clusters(), geometry.total_clusters());
    Err(Problem::field("cluster", cluster, format!("a data cluster, {first:#x} up to below {total:#x}")))
}

fn check_extent_page_entry(geometry: &Geometry, page: u32, count: u32) -> Result<(), Problem> {
    if count != 1 {
        return Err(Problem::field("num_pages", count, "0x1 beside a page index"));
    }
    if page >= geometry.md_pages() {
        let expected = format!("a page index below {:#x}", geometry.md_pages());
        return Err(Problem::field("page_idx", page, expected));
    }
    Ok(())
}

fn check_size(clusters: u64) -> Result<(), Problem> {
    if clusters <= MAX_CLUSTERS {
        return Ok(());
    }
    Err(Problem::field("num_clusters", clusters, format!("at most {MAX_CLUSTERS:#x}")))
}

/// An extent page, checked as far as possible without knowing its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtentPage {
    /// First cluster of the blob that it describes, a multiple of 512.
    pub start_cluster: u32,
    /// Clusters of the device, 0 for unallocated; 1 to 512 of them.
    pub clusters: Entries,
}

/// Decodes an extent page. The caller checks its CRC; its id is ignored (it may name any blob that once had
/// it).
///
/// # Errors
/// Names the rule that the page or its descriptor breaks.
pub fn decode_extent_page(
    page: &Page,
    index: PageIdx,
    geometry: &Geometry,
) -> Result<ExtentPage, FormatError> {
    let place = geometry.page_place(index);
    if page.sequence() != 0 {
        return Err(Problem::field("sequence_num", page.sequence(), "0x0 in an extent page").at(place));
    }
    if let Some(next) = page.next() {
        return Err(Problem::field("next", next.0, "0xffffffff in an extent page").at(place));
    }
    let mut descriptors = page.descriptors(index, geometry.page_offset(index));
    let descriptor_place = descriptors.place();
    let Some(Descriptor::ExtentPage { start_cluster, clusters }) = descriptors.next().transpose()? else {
        let kind = page.descriptor_bytes()[0];
        return Err(Problem::field("descriptor type", kind, "0x6, an extent page").at(descriptor_place));
    };
    if let Some(more) = descriptors.next() {
        more?;
        return Err(Problem::Rule("an extent page holds a second descriptor".into()).at(place));
    }
    if start_cluster % CLUSTERS_PER_EXTENT_PAGE != 0 {
        let expected = "a multiple of 0x200";
        return Err(Problem::field("start_cluster_idx", start_cluster, expected).at(descriptor_place));
    }
    if clusters.len() > CLUSTERS_PER_EXTENT_PAGE as usize {
        let found = clusters.len() as u64;
        return Err(Problem::field("number of clusters", found, "at most 0x200").at(descriptor_place));
    }
    let data = geometry.metadata_clusters()..geometry.total_clusters();
    let mut words = [0; CLUSTERS_PER_EXTENT_PAGE as usize];
    words.iter_mut().zip(clusters.iter()).for_each(|(word, cluster)| *word = cluster);
    let words = &words[..clusters.len()];
    // Without a branch, so that many words are checked at once.
    let strays = words.iter().map(|cluster| u32::from(*cluster != 0) & u32::from(!data.contains(cluster)));
    if strays.sum::<u32>() > 0
        && let Some(&cluster) = words.iter().find(|cluster| **cluster != 0 && !data.contains(cluster))
    {
        check_cluster(geometry, cluster).map_err(|problem| problem.at(descriptor_place))?;
    }
    Ok(ExtentPage { start_cluster, clusters: Entries::from(words) })
}
