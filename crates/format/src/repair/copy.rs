//! Copies of root and extent pages, for devices that can tear a 4096-byte write.
//!
//! Before such a page is rewritten in place, its new contents are written to a free metadata page and
//! flushed. If the write is then torn, a load restores it. A copy is the page with another id: a tag in the
//! high word and the index of the page in the low one, the low word of the real id in the reserved field.
//! SPDK's recovery takes a page with sequence number 0 whose id does not match its index for a free one.
//!
//! A copy comes with checksums of the sectors that the page holds before the rewrite: in the last bytes of
//! its descriptors if the page has room there, otherwise in a second free page. A torn page consists of
//! sectors of both. A page that holds anything else was torn by another write, perhaps of a program without
//! copies, and the copy does not apply.
//!
//! A program that writes copies must make the page durable before its copy is cleared or overwritten.

use crate::crc;
use crate::ids::{BlobId, PageIdx};
use crate::page::{DESCRIPTORS_SIZE, PAGE_SIZE, Page};

/// A copy without checksums, as older versions wrote them.
const BARE: u64 = 0x434F_5059;
/// A copy with checksums in its last bytes.
const INSIDE: u64 = 0x434F_5049;
/// A copy whose checksums are in another page.
const BESIDE: u64 = 0x434F_5042;
/// That page: the low word is the index of the copy's page, the reserved field the copy's CRC.
const SUMS: u64 = 0x434F_5053;

/// Sectors of the smallest device: the unit of a torn write.
const SECTOR: usize = 512;
const SECTORS: usize = PAGE_SIZE / SECTOR;
/// Bytes of the checksums.
const ROOM: usize = 4 * SECTORS;

/// Checksums of a page's sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectorSums([u32; SECTORS]);

impl SectorSums {
    /// The checksums of a page.
    pub fn of(page: &Page) -> SectorSums {
        let mut sums = [0; SECTORS];
        for (sum, sector) in sums.iter_mut().zip(page.bytes().chunks(SECTOR)) {
            *sum = crc::crc32c(sector);
        }
        SectorSums(sums)
    }

    fn from_bytes(bytes: &[u8; ROOM]) -> SectorSums {
        let mut sums = [0; SECTORS];
        for (sum, bytes) in sums.iter_mut().zip(bytes.as_chunks().0) {
            *sum = u32::from_le_bytes(*bytes);
        }
        SectorSums(sums)
    }

    fn put(&self, into: &mut [u8; ROOM]) {
        for (place, sum) in into.as_chunks_mut().0.iter_mut().zip(self.0) {
            *place = sum.to_le_bytes();
        }
    }

    /// The number of sectors with the same checksum as in another page.
    pub(crate) fn likeness(&self, other: &SectorSums) -> usize {
        self.0.iter().zip(&other.0).filter(|(own, other)| own == other).count()
    }
}

/// A copy of a root or extent page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageCopy {
    /// The page whose copy it is.
    pub target: PageIdx,
    /// The page's contents after the rewrite, sealed.
    pub page: Page,
    /// Checksums of the contents before; `None` if the copy has none.
    pub before: Option<SectorSums>,
}

/// The pages of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyPages {
    /// The copy, sealed.
    pub copy: Page,
    /// The checksums, if they do not fit in the copy.
    sums: Option<SectorSums>,
}

impl CopyPages {
    /// True if a second page is needed.
    pub fn needs_another(&self) -> bool {
        self.sums.is_some()
    }

    /// The second page, if needed, for a copy stored in page `copy`.
    pub fn sums_for(&self, copy: PageIdx) -> Option<Page> {
        let sums = self.sums?;
        let mut page = Page::new(BlobId::from_raw(SUMS << 32 | u64::from(copy.0)), 0);
        page.set_identity(page.id().raw(), self.copy.stored_crc());
        sums.put(head_mut(&mut page));
        page.seal();
        Some(page)
    }
}

impl PageCopy {
    /// A copy of the new contents of page `target`, whose present sectors have these checksums.
    pub fn new(target: PageIdx, page: Page, before: SectorSums) -> PageCopy {
        PageCopy { target, page, before: Some(before) }
    }

    /// True if the checksums fit in the copy of a page, so that it takes one page.
    pub fn has_room(page: &Page) -> bool {
        page.descriptor_bytes().last_chunk() == Some(&[0; ROOM])
    }

    /// The copy as it lies on disk. The page's id must be that of a blob.
    pub fn to_pages(&self) -> CopyPages {
        let mut copy = self.page.clone();
        let room = tail_mut(&mut copy);
        let (tag, sums) = match self.before {
            None => (BARE, None),
            Some(before) if *room == [0; ROOM] => {
                before.put(room);
                (INSIDE, None)
            }
            Some(before) => (BESIDE, Some(before)),
        };
        copy.set_identity(tag << 32 | u64::from(self.target.0), self.page.id().raw() as u32);
        copy.seal();
        CopyPages { copy, sums }
    }

    /// True if a page with this id and sequence number holds a copy, or checksums of one.
    pub(crate) fn looks_like(id: BlobId, sequence: u32) -> bool {
        [BARE, INSIDE, BESIDE, SUMS].contains(&(id.raw() >> 32)) && sequence == 0
    }

    /// The copy in a page with a valid CRC, if it is one. For checksums in a second page, `beside` finds them
    /// by the copy's CRC. A copy without its checksums is ignored.
    pub fn from_page(page: &Page, beside: impl FnOnce(u32) -> Option<SectorSums>) -> Option<PageCopy> {
        let tag = page.id().raw() >> 32;
        if !PageCopy::looks_like(page.id(), page.sequence()) {
            return None;
        }
        let mut original = page.clone();
        let before = match tag {
            BARE => None,
            INSIDE => Some(SectorSums::from_bytes(&std::mem::replace(tail_mut(&mut original), [0; ROOM]))),
            BESIDE => Some(beside(page.stored_crc())?),
            _ => return None,
        };
        original.set_identity(BlobId::from_page(PageIdx(page.reserved())).raw(), 0);
        original.seal();
        Some(PageCopy { target: PageIdx(page.id().raw() as u32), page: original, before })
    }

    /// For a page with a valid CRC that holds checksums: the page of their copy, its CRC, and the checksums.
    pub(crate) fn sums_in(page: &Page) -> Option<(PageIdx, u32, SectorSums)> {
        let is_sums = page.id().raw() >> 32 == SUMS && page.sequence() == 0;
        let head = page.descriptor_bytes().first_chunk()?;
        is_sums.then(|| (PageIdx(page.id().raw() as u32), page.reserved(), SectorSums::from_bytes(head)))
    }

    /// True if a page with these sector checksums can be the result of a torn write of the copied page: each
    /// sector is the new one or the old one. If the old ones are unknown, the last one must be the new one:
    /// its CRC belongs to this page only.
    pub fn explains(&self, torn: &SectorSums) -> bool {
        let new = SectorSums::of(&self.page);
        match self.before {
            None => torn.0[SECTORS - 1] == new.0[SECTORS - 1],
            Some(old) => {
                torn.0.iter().zip(new.0.iter().zip(old.0)).all(|(is, (new, old))| is == new || *is == old)
            }
        }
    }
}

fn tail_mut(page: &mut Page) -> &mut [u8; ROOM] {
    page.descriptor_bytes_mut().last_chunk_mut().expect("the descriptors take more bytes")
}

fn head_mut(page: &mut Page) -> &mut [u8; ROOM] {
    page.descriptor_bytes_mut().first_chunk_mut().expect("the descriptors take more bytes")
}

const _: () = assert!(ROOM < DESCRIPTORS_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> SectorSums {
        SectorSums::of(&crate::chain::extent_page(BlobId::from_page(PageIdx(9)), 512, &[7, 0, 0]))
    }

    #[test]
    fn a_copy_gives_the_page_and_the_checksums_back_and_is_no_root_to_spdk() {
        let owner = BlobId::from_page(PageIdx(9));
        let short = crate::chain::extent_page(owner, 512, &[7, 0, 8]);
        let mut full = short.clone();
        full.descriptor_bytes_mut().fill(7);
        full.seal();
        for (page, beside) in [(short, false), (full, true)] {
            let copy = PageCopy::new(PageIdx(3), page, before());
            let pages = copy.to_pages();
            assert_eq!(pages.needs_another(), beside);
            let sums = pages.sums_for(PageIdx(20));
            for page in sums.iter().chain([&pages.copy]) {
                assert!(page.crc_ok());
                assert_eq!(page.sequence(), 0);
                assert_eq!(page.id().root_page(), None, "no page index can make this id that of a root");
            }
            let found = sums.as_ref().and_then(PageCopy::sums_in);
            let (at, crc, found) = found.unwrap_or((PageIdx(20), pages.copy.stored_crc(), before()));
            assert_eq!(at, PageIdx(20));
            let back = PageCopy::from_page(&pages.copy, |asked| (asked == crc).then_some(found)).unwrap();
            assert_eq!(back, copy);
            assert_eq!(PageCopy::from_page(&pages.copy, |_| None).is_none(), beside);
            assert_eq!(PageCopy::from_page(&back.page, |_| None), None);
            assert_eq!(sums.and_then(|sums| PageCopy::from_page(&sums, |_| None)), None);
        }
    }
}
