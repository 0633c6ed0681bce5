//! A metadata page: 4096 bytes with an owner, a place in a chain, descriptors, and a CRC.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | id of the owner (for an extent page: of the blob that first wrote it; must not be checked) |
//! | 8 | 4 | sequence number: 0 for a root or extent page, 1.. along the chain |
//! | 12 | 4 | reserved, zero |
//! | 16 | 4072 | descriptors |
//! | 4088 | 4 | index of the next page of the chain, all ones for none |
//! | 4092 | 4 | CRC-32C of the first 4092 bytes |
//!
//! When a store's metadata pages are larger than 4096 bytes, only the first 4096 of each slot count.

use crate::change::Change;
use crate::error::{FormatError, Place, Problem};
use crate::geometry::Geometry;
use crate::ids::{BlobId, PageIdx};
pub use crate::page_layout::{DESCRIPTORS_OFFSET, DESCRIPTORS_SIZE, PAGE_SIZE};
use crate::{crc, descriptor};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "No next page" on disk.
const NO_NEXT: u32 = u32::MAX;

/// A metadata page as it lies on disk.
#[derive(Clone, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Page {
    id: U64,
    sequence: U32,
    reserved: U32,
    descriptors: [u8; DESCRIPTORS_SIZE],
    next: U32,
    crc: U32,
}

impl Page {
    /// An empty page of a blob's chain, without next page and not yet sealed.
    pub fn new(owner: BlobId, sequence: u32) -> Page {
        Page {
            id: owner.raw().into(),
            sequence: sequence.into(),
            reserved: 0.into(),
            descriptors: [0; DESCRIPTORS_SIZE],
            next: NO_NEXT.into(),
            crc: 0.into(),
        }
    }

    /// The page at the head of these bytes, valid or not; `None` if there are fewer than 4096.
    pub fn view(bytes: &[u8]) -> Option<&Page> {
        Page::ref_from_prefix(bytes).ok().map(|(page, _)| page)
    }

    /// The page's 4096 bytes.
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        zerocopy::transmute_ref!(self)
    }

    /// True if the CRC in the page matches its bytes.
    pub fn crc_ok(&self) -> bool {
        crc::of_page(self.bytes()) == self.crc.get()
    }

    /// Checks the CRC.
    ///
    /// # Errors
    /// Names the page, both CRCs, and `place`'s byte offset.
    pub fn check_crc(&self, place: Place) -> Result<(), FormatError> {
        let computed = crc::of_page(self.bytes());
        if computed == self.crc.get() {
            return Ok(());
        }
        Err(Problem::Crc { stored: self.crc.get(), computed }.at(place))
    }

    /// Writes the right CRC into the page.
    pub fn seal(&mut self) {
        self.crc = crc::of_page(self.bytes()).into();
    }

    /// The write that puts the page into its slot; the rest of a larger slot is zeroed.
    pub fn write(&self, at: PageIdx, geometry: &Geometry) -> Change {
        let mut bytes = self.bytes().to_vec();
        bytes.resize(geometry.md_page_size() as usize, 0);
        Change::Write { offset: geometry.page_offset(at), bytes }
    }

    /// The write that clears the slot of a page.
    pub fn clear(at: PageIdx, geometry: &Geometry) -> Change {
        Change::Zero { offset: geometry.page_offset(at), len: geometry.md_page_size().into() }
    }

    /// The write that clears the page's last sector, and with it the CRC: a crash that tears nothing smaller
    /// leaves the page as it was or as no page at all, whereas half of a cleared page would be neither. For
    /// devices with blocks of 512 bytes.
    pub fn clear_last_sector(at: PageIdx, geometry: &Geometry) -> Change {
        Change::Zero { offset: geometry.page_offset(at) + (PAGE_SIZE - 512) as u64, len: 512 }
    }

    /// The id of the blob that wrote the page. In an extent page it proves nothing.
    pub fn id(&self) -> BlobId {
        BlobId::from_raw(self.id.get())
    }

    /// Position in the chain: 0 for root and extent pages.
    pub fn sequence(&self) -> u32 {
        self.sequence.get()
    }

    /// The reserved word; zero in everything that SPDK writes.
    pub fn reserved(&self) -> u32 {
        self.reserved.get()
    }

    /// The next page of the chain.
    pub fn next(&self) -> Option<PageIdx> {
        (self.next.get() != NO_NEXT).then(|| PageIdx(self.next.get()))
    }

    /// The CRC in the page.
    pub fn stored_crc(&self) -> u32 {
        self.crc.get()
    }

    /// Links the page to the next one of its chain; seal the page afterwards.
    pub fn set_next(&mut self, next: Option<PageIdx>) {
        self.next = next.map_or(NO_NEXT, |page| page.0).into();
    }

    /// The area that holds descriptors.
    pub fn descriptor_bytes(&self) -> &[u8; DESCRIPTORS_SIZE] {
        &self.descriptors
    }

    /// The area that holds descriptors; seal the page after a change.
    pub fn descriptor_bytes_mut(&mut self) -> &mut [u8; DESCRIPTORS_SIZE] {
        &mut self.descriptors
    }

    /// Walks the descriptors of this page, which is page `index` and begins at byte `offset` of the image.
    pub fn descriptors(&self, index: PageIdx, offset: u64) -> descriptor::Descriptors<'_> {
        descriptor::Descriptors::new(&self.descriptors, index, offset)
    }

    /// Sets id and reserved word, for copies (see [`crate::repair`]).
    pub(crate) fn set_identity(&mut self, id: u64, reserved: u32) {
        self.id = id.into();
        self.reserved = reserved.into();
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page")
            .field("id", &self.id())
            .field("sequence", &self.sequence())
            .field("next", &self.next())
            .field("crc", &format_args!("{:#010x}", self.stored_crc()))
            .finish_non_exhaustive()
    }
}
