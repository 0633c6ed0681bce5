//! The kept parts of metadata pages that were read.

use crate::chain::{self, ExtentPage, decode_extent_page};
use crate::crc;
use crate::descriptor::{self, kind};
use crate::error::FormatError;
use crate::geometry::Geometry;
use crate::ids::{BlobId, PageIdx};
use crate::page::{DESCRIPTORS_OFFSET, PAGE_SIZE, Page};
use crate::repair::{PageCopy, SectorSums};
use std::collections::{BTreeMap, BTreeSet};

/// Sectors of the smallest device: the unit of a torn write.
const SECTOR: usize = 512;

/// A page with a valid CRC.
#[derive(Debug)]
pub(super) enum Stored {
    /// A valid extent page in its shortest form: decoded once, and shared with the map that names it.
    Extents {
        /// The id in it.
        id: BlobId,
        /// What it says.
        page: ExtentPage,
    },
    /// Any other, without the zeroes after its last descriptor.
    Whole {
        head: Box<[u8]>,
        /// The last eight bytes: "next" and CRC.
        tail: [u8; 8],
    },
}

impl Stored {
    fn new(page: &Page, index: PageIdx, geometry: &Geometry) -> Stored {
        let bytes = page.bytes();
        let descriptors = page.descriptor_bytes();
        let words = descriptors.as_chunks::<8>().0;
        let end = words.iter().rposition(|word| *word != [0; 8]).map_or(0, |last| (last + 1) * 8);
        if let Some(page) = shortest_extents(page, end, index, geometry) {
            return page;
        }
        let tail = *bytes.last_chunk().expect("a page has 4096 bytes");
        Stored::Whole { head: bytes[..DESCRIPTORS_OFFSET + end].into(), tail }
    }

    /// The whole page, all 4096 bytes.
    pub(super) fn page(&self) -> Page {
        match self {
            Stored::Extents { id, page } => {
                chain::extent_page(*id, page.start_cluster, &page.clusters.to_vec())
            }
            Stored::Whole { head, tail } => {
                let mut bytes = [0; PAGE_SIZE];
                bytes[..head.len()].copy_from_slice(head);
                bytes[PAGE_SIZE - tail.len()..].copy_from_slice(tail);
                zerocopy::transmute!(bytes)
            }
        }
    }

    /// What it says as an extent page.
    ///
    /// # Errors
    /// As [`decode_extent_page`].
    pub(super) fn extents(&self, index: PageIdx, geometry: &Geometry) -> Result<ExtentPage, FormatError> {
        match self {
            Stored::Extents { page, .. } => Ok(page.clone()),
            Stored::Whole { .. } => decode_extent_page(&self.page(), index, geometry),
        }
    }

    pub(super) fn id(&self) -> BlobId {
        match self {
            Stored::Extents { id, .. } => *id,
            Stored::Whole { head, .. } => BlobId::from_raw(u64::from_le_bytes(word(head, 0))),
        }
    }

    pub(super) fn sequence(&self) -> u32 {
        match self {
            Stored::Extents { .. } => 0,
            Stored::Whole { head, .. } => u32::from_le_bytes(word(head, 8)),
        }
    }

    fn looks_like_copy(&self) -> bool {
        PageCopy::looks_like(self.id(), self.sequence())
    }
}

fn word<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    head[at..].first_chunk().copied().expect("a stored page keeps its 16 bytes of header")
}

/// The page, if all of it is one valid extent page descriptor as [`chain::extent_page`] writes it, so that it can be
/// written again from what it says. Its descriptors are zero from byte `end` on.
fn shortest_extents(page: &Page, end: usize, index: PageIdx, geometry: &Geometry) -> Option<Stored> {
    if !is_lone_extent_page(page) || page.reserved() != 0 {
        return None;
    }
    let decoded = decode_extent_page(page, index, geometry).ok()?;
    let used = descriptor::HEADER_SIZE + 4 + 4 * decoded.clusters.len();
    let behind = page.descriptor_bytes().get(used..end).unwrap_or_default();
    let shortest = behind.iter().all(|&byte| byte == 0);
    shortest.then(|| Stored::Extents { id: page.id(), page: decoded })
}

/// True if it claims to be an extent page and names no next page.
pub(super) fn is_lone_extent_page(page: &Page) -> bool {
    is_extent_page(page) && page.next().is_none()
}

fn is_extent_page(page: &Page) -> bool {
    page.descriptor_bytes()[0] == kind::EXTENT_PAGE
}

/// A page that cannot be used but is not empty.
#[derive(Debug)]
pub(super) struct Bad {
    /// Both CRCs; `None` if the device could not read the page.
    pub(super) crcs: Option<(u32, u32)>,
    /// True if its header is that of the root of the blob whose id is its index.
    pub(super) says_root: bool,
    /// True if its last sector is empty, as after an interrupted write over an empty page or of zeroes.
    pub(super) last_sector_empty: bool,
    /// Checksums of its sectors.
    pub(super) sums: SectorSums,
}

impl Bad {
    fn new(page: &Page, header: Header, computed: u32) -> Bad {
        let bytes = page.bytes();
        Bad {
            crcs: Some((page.stored_crc(), computed)),
            says_root: header == Header::Root,
            last_sector_empty: bytes[PAGE_SIZE - SECTOR..].iter().all(|&byte| byte == 0),
            sums: SectorSums::of(page),
        }
    }

    fn unreadable() -> Bad {
        let nothing = Page::new(BlobId::from_raw(0), 0);
        let sums = SectorSums::of(&nothing);
        Bad { crcs: None, says_root: false, last_sector_empty: false, sums }
    }
}

/// A page that was read and is not empty.
#[derive(Debug)]
pub(super) enum Record {
    Good(Stored),
    Bad(Box<Bad>),
}

/// The kind of page according to its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Header {
    /// The root of the blob whose id is the page's index.
    Root,
    /// A page of another blob's chain, an extent page, or a copy; or nothing.
    Other,
    /// None of these: no program writes such a page in this place.
    Strange,
}

impl Header {
    /// A torn write leaves whole sectors of the new contents, so that the first one holds a header or is empty.
    fn of(page: &Page, index: PageIdx, md_pages: u32, whole: bool) -> Header {
        let (id, sequence) = (page.id(), page.sequence());
        let extent_page = is_extent_page(page);
        let nothing = || !whole && page.bytes()[..SECTOR].iter().all(|&byte| byte == 0);
        match id.root_page() {
            Some(root) if root == index && sequence == 0 => Header::Root,
            Some(root) if root == index || root.0 >= md_pages || sequence >= md_pages => Header::Strange,
            Some(_) if sequence == 0 && !extent_page => Header::Strange,
            Some(_) => Header::Other,
            None if PageCopy::looks_like(id, sequence) || nothing() => Header::Other,
            None => Header::Strange,
        }
    }
}

impl Record {
    fn is_root(&self, index: PageIdx) -> bool {
        match self {
            Record::Good(page) => page.sequence() == 0 && page.id() == BlobId::from_page(index),
            // With an empty last sector it was being made or deleted when the program died.
            Record::Bad(bad) => bad.says_root && !bad.last_sector_empty,
        }
    }
}

/// Pages whose records are stored together.
const TOGETHER: u32 = 32;

/// The pages that were read and are not empty, by index.
#[derive(Debug)]
pub(super) struct Records {
    pages: BTreeMap<u32, Box<[Option<Record>; TOGETHER as usize]>>,
    count: u64,
    /// Pages that looked like roots when they were read, in any order.
    roots: Vec<PageIdx>,
    /// Pages that looked like copies.
    copies: Vec<PageIdx>,
    /// Unusable pages.
    bad: Vec<PageIdx>,
    /// Pages with a header that no program writes there.
    strange: BTreeSet<PageIdx>,
    geometry: Geometry,
}

impl Records {
    /// No records yet, for a store of this geometry.
    pub(super) fn of(geometry: Geometry) -> Records {
        Records {
            pages: BTreeMap::new(),
            count: 0,
            roots: Vec::new(),
            copies: Vec::new(),
            bad: Vec::new(),
            strange: BTreeSet::new(),
            geometry,
        }
    }

    /// Takes a page as it was read; true if its CRC is valid. An empty one costs a few comparisons and a look at its first
    /// sector.
    pub(super) fn take(&mut self, index: PageIdx, page: &Page) -> bool {
        // A root, a link of a chain, and an extent page all have a nonzero value here: id and CRC for the
        // first two, "next" for the third. A tear leaves the first sector of one of them, or an empty one.
        let nothing_said = page.id().raw() == 0 && page.next() == Some(PageIdx(0)) && page.stored_crc() == 0;
        let empty = nothing_said && (page.bytes()[..SECTOR] == [0; SECTOR] || is_extent_page(page));
        if empty {
            return false;
        }
        let computed = crc::of_page(page.bytes());
        let whole = computed == page.stored_crc();
        let header = Header::of(page, index, self.geometry.md_pages(), whole);
        if header == Header::Strange {
            self.strange.insert(index);
        }
        let record = if whole {
            Record::Good(Stored::new(page, index, &self.geometry))
        } else {
            Record::Bad(Box::new(Bad::new(page, header, computed)))
        };
        self.put(index, record);
        whole
    }

    /// True if a page that the masks call free holds a root: then it is not free.
    pub(super) fn is_unlisted_root(index: PageIdx, page: &Page) -> bool {
        let says_root = page.sequence() == 0 && page.id() == BlobId::from_page(index);
        // With an empty last sector it was being made or deleted when the program died.
        let is_whole = || crc::of_page(page.bytes()) == page.stored_crc();
        says_root && (is_whole() || page.bytes()[PAGE_SIZE - SECTOR..].iter().any(|&byte| byte != 0))
    }

    /// Takes a page that could not be read.
    pub(super) fn take_unreadable(&mut self, index: PageIdx) {
        self.put(index, Record::Bad(Box::new(Bad::unreadable())));
    }

    /// Replaces a torn page by a whole one.
    pub(super) fn restore(&mut self, index: PageIdx, page: &Page) {
        self.strange.remove(&index);
        self.put(index, Record::Good(Stored::new(page, index, &self.geometry)));
    }

    fn put(&mut self, index: PageIdx, record: Record) {
        if record.is_root(index) {
            self.roots.push(index);
        }
        match &record {
            Record::Good(stored) if stored.looks_like_copy() => self.copies.push(index),
            Record::Good(_) => {}
            Record::Bad(_) => self.bad.push(index),
        }
        let none = || Box::new([const { None }; TOGETHER as usize]);
        let place =
            &mut self.pages.entry(index.0 / TOGETHER).or_insert_with(none)[(index.0 % TOGETHER) as usize];
        self.count += u64::from(place.replace(record).is_none());
    }

    pub(super) fn forget(&mut self, index: PageIdx) {
        if let Some(together) = self.pages.get_mut(&(index.0 / TOGETHER)) {
            self.count -= u64::from(together[(index.0 % TOGETHER) as usize].take().is_some());
        }
    }

    pub(super) fn get(&self, index: PageIdx) -> Option<&Record> {
        self.pages.get(&(index.0 / TOGETHER))?[(index.0 % TOGETHER) as usize].as_ref()
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The pages that are roots, in order: valid ones, and damaged ones that still show it.
    pub(super) fn roots(&self) -> Vec<PageIdx> {
        let is_root = |&index: &PageIdx| self.get(index).is_some_and(|record| record.is_root(index));
        sorted(self.roots.iter().copied().filter(is_root))
    }

    /// The copies of other pages, ordered by where they are stored, each with the page that holds its checksums
    /// if they are not in the copy.
    pub(super) fn copies(&self) -> Vec<(PageIdx, PageCopy, Option<PageIdx>)> {
        let pages = || {
            let looking = sorted(self.copies.iter().copied()).into_iter();
            looking.filter_map(|index| match self.get(index) {
                Some(Record::Good(stored)) if stored.looks_like_copy() => Some((index, stored.page())),
                _ => None,
            })
        };
        let sums: BTreeMap<(PageIdx, u32), (PageIdx, SectorSums)> = pages()
            .filter_map(|(at, page)| {
                PageCopy::sums_in(&page).map(|(copy, crc, sums)| ((copy, crc), (at, sums)))
            })
            .collect();
        let copy = |(index, page): (PageIdx, Page)| {
            let mut beside = None;
            let found = PageCopy::from_page(&page, |crc| {
                let (at, sums) = sums.get(&(index, crc))?;
                beside = Some(*at);
                Some(*sums)
            });
            found.map(|copy| (index, copy, beside))
        };
        pages().filter_map(copy).collect()
    }

    /// The pages that cannot be used, in order.
    pub(super) fn bad(&self) -> impl Iterator<Item = (PageIdx, &Bad)> {
        let bad = |index| match self.get(index) {
            Some(Record::Bad(bad)) => Some((index, &**bad)),
            _ => None,
        };
        sorted(self.bad.iter().copied()).into_iter().filter_map(bad)
    }

    /// The pages, in order, that neither a program nor a torn write leaves in their places.
    pub(super) fn strange(&self) -> impl Iterator<Item = PageIdx> {
        self.strange.iter().copied()
    }

    /// Drops some records; false if there were none left.
    pub(super) fn drop_some(&mut self) -> bool {
        self.pages.pop_first().is_some()
    }
}

fn sorted(pages: impl Iterator<Item = PageIdx>) -> Vec<PageIdx> {
    let mut pages: Vec<PageIdx> = pages.collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}
