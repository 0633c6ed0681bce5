//! What is kept of the metadata pages that were read.

use crate::crc;
use crate::descriptor::kind;
use crate::ids::{BlobId, PageIdx};
use crate::page::{DESCRIPTORS_OFFSET, PAGE_SIZE, Page};
use crate::repair::PageCopy;
use std::collections::BTreeMap;

/// Sectors of the smallest device: what a torn write is made of.
const SECTOR: usize = 512;

/// A page whose CRC is right, without the zeroes behind its last descriptor.
#[derive(Debug)]
pub(super) struct Stored {
    head: Box<[u8]>,
    /// The last eight bytes: "next" and CRC.
    tail: [u8; 8],
}

impl Stored {
    pub(super) fn new(page: &Page) -> Stored {
        let bytes = page.bytes();
        let descriptors = page.descriptor_bytes();
        let words = descriptors.as_chunks::<8>().0;
        let end = words.iter().rposition(|word| *word != [0; 8]).map_or(0, |last| (last + 1) * 8);
        let tail = *bytes.last_chunk().expect("a page has 4096 bytes");
        Stored { head: bytes[..DESCRIPTORS_OFFSET + end].into(), tail }
    }

    /// The page again, all 4096 bytes of it.
    pub(super) fn page(&self) -> Page {
        let mut bytes = [0; PAGE_SIZE];
        bytes[..self.head.len()].copy_from_slice(&self.head);
        bytes[PAGE_SIZE - self.tail.len()..].copy_from_slice(&self.tail);
        zerocopy::transmute!(bytes)
    }

    pub(super) fn id(&self) -> BlobId {
        BlobId::from_raw(u64::from_le_bytes(self.word(0)))
    }

    pub(super) fn sequence(&self) -> u32 {
        u32::from_le_bytes(self.word(8))
    }

    /// The copy of another page that this page holds, if it is one.
    pub(super) fn page_copy(&self) -> Option<PageCopy> {
        PageCopy::looks_like(self.id(), self.sequence()).then(|| PageCopy::from_page(&self.page())).flatten()
    }

    /// Type of the first descriptor.
    pub(super) fn first_kind(&self) -> u8 {
        self.head.get(DESCRIPTORS_OFFSET).copied().unwrap_or(0)
    }

    /// Whether it says that it is an extent page and names no next page.
    pub(super) fn is_lone_extent_page(&self) -> bool {
        self.first_kind() == kind::EXTENT_PAGE && self.tail.first_chunk() == Some(&[0xff; 4])
    }

    fn word<const N: usize>(&self, at: usize) -> [u8; N] {
        self.head[at..].first_chunk().copied().expect("a stored page keeps its 16 bytes of header")
    }
}

/// A page that cannot be used but is not empty.
#[derive(Debug)]
pub(super) struct Bad {
    /// Both CRCs; `None` if the device could not read the page.
    pub(super) crcs: Option<(u32, u32)>,
    /// Its header is that of the root of the blob whose id is its index.
    pub(super) says_root: bool,
    /// Its last sector is empty, as in a write that was cut off over an empty page or by zeroes.
    pub(super) last_sector_empty: bool,
    sectors: [u32; PAGE_SIZE / SECTOR],
}

impl Bad {
    fn new(page: &Page, index: PageIdx, computed: u32) -> Bad {
        let bytes = page.bytes();
        let mut sectors = [0; PAGE_SIZE / SECTOR];
        for (sum, sector) in sectors.iter_mut().zip(bytes.chunks(SECTOR)) {
            *sum = crc::crc32c(sector);
        }
        Bad {
            crcs: Some((page.stored_crc(), computed)),
            says_root: page.sequence() == 0 && page.id() == BlobId::from_page(index),
            last_sector_empty: bytes[PAGE_SIZE - SECTOR..].iter().all(|&byte| byte == 0),
            sectors,
        }
    }

    fn unreadable() -> Bad {
        Bad { crcs: None, says_root: false, last_sector_empty: false, sectors: [0; 8] }
    }

    /// In how many sectors the page is equal to another: a torn write is equal in some to what was written.
    pub(super) fn likeness(&self, page: &Page) -> usize {
        let sums = page.bytes().chunks(SECTOR).map(crc::crc32c);
        self.sectors.iter().zip(sums).filter(|&(&own, other)| own == other).count()
    }
}

/// A page that was read and is not empty.
#[derive(Debug)]
pub(super) enum Record {
    Good(Stored),
    Bad(Bad),
}

/// The pages that were read and are not empty, by index.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<PageIdx, Record>);

impl Records {
    /// Takes a page as it was read. Costs two looks at an empty one.
    pub(super) fn take(&mut self, index: PageIdx, page: &Page) {
        // Neither a root, nor a link of a chain, nor an extent page has a zero here: id and CRC of the first
        // two, "next" of the third.
        let empty = page.id().raw() == 0 && page.next() == Some(PageIdx(0)) && page.stored_crc() == 0;
        if empty {
            return;
        }
        let computed = crc::of_page(page.bytes());
        let record = if computed == page.stored_crc() {
            Record::Good(Stored::new(page))
        } else {
            Record::Bad(Bad::new(page, index, computed))
        };
        self.0.insert(index, record);
    }

    /// Takes a page that could not be read.
    pub(super) fn take_unreadable(&mut self, index: PageIdx) {
        self.0.insert(index, Record::Bad(Bad::unreadable()));
    }

    /// Puts a whole page in the place of a torn one.
    pub(super) fn restore(&mut self, index: PageIdx, page: &Page) {
        self.0.insert(index, Record::Good(Stored::new(page)));
    }

    pub(super) fn forget(&mut self, index: PageIdx) {
        self.0.remove(&index);
    }

    pub(super) fn get(&self, index: PageIdx) -> Option<&Record> {
        self.0.get(&index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PageIdx, &Record)> {
        self.0.iter().map(|(&index, record)| (index, record))
    }
}
