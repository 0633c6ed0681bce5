//! The three masks that a clean store carries: used metadata pages, used clusters, used blob ids.
//!
//! A mask is a byte of type, a little-endian `u32` number of bits, then the bits, lowest first. No CRC
//! covers it. Masks are zero until the first unload and stale while the super block says "not clean".

use crate::bitmap::Bitmap;
use crate::change::Change;
use crate::error::{FormatError, Place, Problem};
use crate::geometry::Geometry;
pub use crate::mask_kind::MaskKind;

/// Bytes written at a time: as much as can be made within a millisecond.
const WRITE: u64 = 256 << 10;

/// Bytes before the bits of a mask.
pub const HEADER_SIZE: usize = 5;

/// Where a mask lies, for errors.
pub fn place(kind: MaskKind, geometry: &Geometry) -> Place {
    Place::Mask { kind, offset: geometry.bytes_of(geometry.mask(kind)).0 }
}

/// Reads a mask from the bytes of its region.
///
/// A cluster mask longer than the store is accepted and cut: SPDK leaves one behind when growing fails.
///
/// # Errors
/// Type or number of bits do not match the geometry, or there are too few bytes.
pub fn parse(kind: MaskKind, bytes: &[u8], geometry: &Geometry) -> Result<Bitmap, FormatError> {
    let place = place(kind, geometry);
    let bits = geometry.mask_bits(kind);
    let needed = HEADER_SIZE + bits.div_ceil(8) as usize;
    if bytes.len() < needed {
        return Err(Problem::TooShort { needed: needed as u64, found: bytes.len() as u64 }.at(place));
    }
    if bytes[0] != kind.code() {
        return Err(Problem::field("type", bytes[0], kind.code().to_string()).at(place));
    }
    let length = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    let longer_is_fine = kind == MaskKind::UsedClusters && length > bits;
    if length != bits && !longer_is_fine {
        return Err(Problem::field("length", length, format!("{bits:#x}")).at(place));
    }
    Ok(Bitmap::from_bytes(&bytes[HEADER_SIZE..needed], bits))
}

/// The number of writes that a mask takes.
pub fn writes(kind: MaskKind, geometry: &Geometry) -> u64 {
    geometry.bytes_of(geometry.mask(kind)).1.div_ceil(WRITE)
}

/// One of these writes. They fill the mask's whole region, with zeroes after the bits.
pub fn write(kind: MaskKind, number: u64, bits: &Bitmap, geometry: &Geometry) -> Change {
    let (start, len) = geometry.bytes_of(geometry.mask(kind));
    let from = (number * WRITE).min(len);
    let (at, end) = (from as usize, (from + WRITE).min(len) as usize);
    let mut bytes = Vec::with_capacity(end - at);
    if at == 0 {
        bytes.push(kind.code());
        bytes.extend_from_slice(&bits.len().to_le_bytes());
    }
    bytes.extend_from_slice(&bits.bytes(at.saturating_sub(HEADER_SIZE)..end - HEADER_SIZE));
    Change::Write { offset: start + from, bytes }
}
