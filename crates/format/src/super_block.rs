//! The super block: the first 4096 bytes of a store.

use crate::change::Change;
use crate::error::{FormatError, Place, Problem};
use crate::ids::BlobId;
use crate::page_layout::PAGE_SIZE;
use crate::{crc, geometry};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first bytes of every store.
pub const SIGNATURE: [u8; 8] = *b"SPDKBLOB";

/// The version this crate writes; 1 to 3 are read.
pub const VERSION: u32 = 3;

const NO_SUPER_BLOB: u64 = u64::MAX;

/// Bytes of the values, all in the first sector.
pub(crate) const VALUES: usize = 96;

/// The "clean" field.
const CLEAN: std::ops::Range<usize> = 16..20;

/// Where a note of the values may be, in the last sector of the smallest device.
const NOTE: usize = PAGE_SIZE - 512;
const NOTE_END: usize = NOTE + 2 * VALUES;

/// The type of a store: 16 bytes without meaning to the format.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BsType(pub [u8; 16]);

impl BsType {
    /// The type of a store without one.
    pub const NONE: BsType = BsType([0; 16]);
    /// The tag of logical volume stores.
    pub const LVOLSTORE: BsType = BsType(*b"LVOLSTORE\0\0\0\0\0\0\0");
    /// The types that a load tries when it identifies a torn super block.
    pub const KNOWN: [BsType; 2] = [BsType::NONE, BsType::LVOLSTORE];
}

impl std::fmt::Display for BsType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        write!(f, "{}", self.0[..end].escape_ascii())
    }
}

impl std::fmt::Debug for BsType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BsType({self})")
    }
}

/// The values of a super block. Region starts and lengths are in metadata pages of this store, counted
/// from byte 0; the rest is in the units its name says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuperBlock {
    /// 3 in everything written today; 1 and 2 are older.
    pub version: u32,
    /// True if the store was unloaded cleanly, so that its masks can be trusted.
    pub clean: bool,
    /// The blob that programs look for first, if one was set. May be an id that no blob has.
    pub super_blob: Option<BlobId>,
    /// Bytes of a cluster.
    pub cluster_size: u32,
    /// The mask of used metadata pages.
    pub used_page_mask: geometry::Region,
    /// The mask of used clusters (the space reserved after it may be longer).
    pub used_cluster_mask: geometry::Region,
    /// The mask of used blob ids; length 0 in stores older than version 3.
    pub used_blobid_mask: geometry::Region,
    /// The metadata pages.
    pub metadata: geometry::Region,
    /// The store's type.
    pub bs_type: BsType,
    /// Bytes of the store; 0 in old stores, meaning the whole device.
    pub size: u64,
    /// Bytes of the smallest I/O, which is the block size of the device; 0 in old stores, meaning 4096.
    pub io_unit_size: u32,
    /// Bytes of a metadata slot; 0 in old stores, meaning 4096.
    pub md_page_size: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    signature: [u8; 8],
    version: U32,
    length: U32,
    clean: U32,
    super_blob: U64,
    cluster_size: U32,
    used_page_mask_start: U32,
    used_page_mask_len: U32,
    used_cluster_mask_start: U32,
    used_cluster_mask_len: U32,
    md_start: U32,
    md_len: U32,
    bstype: [u8; 16],
    used_blobid_mask_start: U32,
    used_blobid_mask_len: U32,
    size: U64,
    io_unit_size: U32,
    md_page_size: U32,
    reserved: [u8; 3996],
    crc: U32,
}

impl SuperBlock {
    /// Reads a super block from the first bytes of an image.
    ///
    /// # Errors
    /// Signature, version, CRC, in this order. [`geometry::Geometry::from_super`] checks the geometry.
    pub fn parse(bytes: &[u8]) -> Result<SuperBlock, FormatError> {
        let raw = Raw::view(bytes)?;
        let version = raw.version.get();
        if raw.signature != SIGNATURE {
            let found = u64::from_le_bytes(raw.signature);
            return Err(problem("signature", found, "\"SPDKBLOB\": this is not a Blobstore"));
        }
        if !(1..=VERSION).contains(&version) {
            return Err(problem("version", version, "1, 2 or 3"));
        }
        let computed = crc32c_of(bytes);
        if computed != raw.crc.get() {
            return Err(Problem::Crc { stored: raw.crc.get(), computed }.at(Place::SuperBlock));
        }
        Ok(raw.values())
    }

    /// The values of these bytes, unchecked, for tools that display them.
    ///
    /// # Errors
    /// Only if there are fewer than 4096 bytes.
    pub fn parse_unchecked(bytes: &[u8]) -> Result<SuperBlock, FormatError> {
        Ok(Raw::view(bytes)?.values())
    }

    /// The 4096 bytes of this super block, sealed. Contents that an older version had in reserved space are
    /// lost.
    pub fn to_bytes(&self) -> [u8; PAGE_SIZE] {
        let raw = Raw {
            signature: SIGNATURE,
            version: self.version.into(),
            length: (PAGE_SIZE as u32).into(),
            clean: u32::from(self.clean).into(),
            super_blob: self.super_blob.map_or(NO_SUPER_BLOB, BlobId::raw).into(),
            cluster_size: self.cluster_size.into(),
            used_page_mask_start: self.used_page_mask.start.into(),
            used_page_mask_len: self.used_page_mask.len.into(),
            used_cluster_mask_start: self.used_cluster_mask.start.into(),
            used_cluster_mask_len: self.used_cluster_mask.len.into(),
            md_start: self.metadata.start.into(),
            md_len: self.metadata.len.into(),
            bstype: self.bs_type.0,
            used_blobid_mask_start: self.used_blobid_mask.start.into(),
            used_blobid_mask_len: self.used_blobid_mask.len.into(),
            size: self.size.into(),
            io_unit_size: self.io_unit_size.into(),
            md_page_size: self.md_page_size.into(),
            reserved: [0; 3996],
            crc: 0.into(),
        };
        let mut bytes: [u8; PAGE_SIZE] = zerocopy::transmute!(raw);
        crc::seal(&mut bytes);
        bytes
    }

    /// The write that puts the super block in its place: a whole metadata page, filled with zeroes.
    pub fn write(&self, geometry: &geometry::Geometry) -> Change {
        let mut bytes = self.to_bytes().to_vec();
        bytes.resize(geometry.md_page_size() as usize, 0);
        Change::Write { offset: 0, bytes }
    }

    /// The two writes that replace this super block by another where a write can tear; the first must be
    /// durable before the second: from then on the last sector lists what the first one can hold.
    pub fn change_to(&self, next: &SuperBlock, sector: u32, geometry: &geometry::Geometry) -> [Change; 2] {
        let at = PAGE_SIZE - sector as usize;
        let announced = self.to_bytes_beside(next)[at..].to_vec();
        let mut whole = next.to_bytes_beside(self).to_vec();
        whole.resize(geometry.md_page_size() as usize, 0);
        [Change::Write { offset: at as u64, bytes: announced }, Change::Write { offset: 0, bytes: whole }]
    }

    /// The super block, sealed, with a note in its last sector: its own values, and those of another that the
    /// first sector may hold instead.
    fn to_bytes_beside(&self, other: &SuperBlock) -> [u8; PAGE_SIZE] {
        let mut bytes = self.to_bytes();
        bytes.copy_within(..VALUES, NOTE);
        bytes[NOTE + VALUES..NOTE + 2 * VALUES].copy_from_slice(&other.to_bytes()[..VALUES]);
        crc::seal(&mut bytes);
        bytes
    }
}

/// The note in a super block's reserved bytes, which are empty or hold in the last sector the values that its
/// CRC belongs to and others that the first sector may hold instead. `None` if they hold anything else.
pub(crate) fn note_in(page: &[u8; PAGE_SIZE]) -> Option<&[u8]> {
    let (before, note, behind) = (&page[VALUES..NOTE], &page[NOTE..NOTE_END], &page[NOTE_END..PAGE_SIZE - 4]);
    let empty = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    let known = empty(note) || note.starts_with(&SIGNATURE);
    (empty(before) && empty(behind) && known).then_some(note)
}

/// True if the note in a super block with a wrong CRC allows the contents of the first sector, clean or not:
/// it is half of a change whose other half is in the last sector, or that half after a repair.
pub(crate) fn is_noted(page: &[u8; PAGE_SIZE]) -> bool {
    let Some((own, other)) = note_in(page).map(|note| note.split_at(VALUES)) else { return false };
    let mut whole = *page;
    whole[..VALUES].copy_from_slice(own);
    let same = page[..CLEAN.start] == other[..CLEAN.start] && page[CLEAN.end..VALUES] == other[CLEAN.end..];
    same && crc::of_page(&whole) == crc::stored_in(page)
}

impl Raw {
    fn view(bytes: &[u8]) -> Result<&Raw, FormatError> {
        Raw::ref_from_prefix(bytes).map(|(raw, _)| raw).map_err(|_| {
            Problem::TooShort { needed: PAGE_SIZE as u64, found: bytes.len() as u64 }.at(Place::SuperBlock)
        })
    }

    fn values(&self) -> SuperBlock {
        let region = |start: U32, len: U32| geometry::Region { start: start.get(), len: len.get() };
        let super_blob = self.super_blob.get();
        SuperBlock {
            version: self.version.get(),
            clean: self.clean.get() == 1,
            super_blob: (super_blob != NO_SUPER_BLOB).then(|| BlobId::from_raw(super_blob)),
            cluster_size: self.cluster_size.get(),
            used_page_mask: region(self.used_page_mask_start, self.used_page_mask_len),
            used_cluster_mask: region(self.used_cluster_mask_start, self.used_cluster_mask_len),
            used_blobid_mask: region(self.used_blobid_mask_start, self.used_blobid_mask_len),
            metadata: region(self.md_start, self.md_len),
            bs_type: BsType(self.bstype),
            size: self.size.get(),
            io_unit_size: self.io_unit_size.get(),
            md_page_size: self.md_page_size.get(),
        }
    }
}

fn crc32c_of(bytes: &[u8]) -> u32 {
    crc::crc32c(&bytes[..PAGE_SIZE - 4])
}

fn problem(field: &'static str, found: impl Into<u64>, expected: &str) -> FormatError {
    Problem::field(field, found, expected).at(Place::SuperBlock)
}
