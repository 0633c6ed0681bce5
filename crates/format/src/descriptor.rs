//! Descriptors: the records inside a metadata page, each a type, a length, and a payload.
//!
//! A descriptor is a byte of type, a little-endian `u32` number of payload bytes, and the payload; the next
//! one follows without alignment. Type 0 with length 0, or fewer than five bytes left, ends the page.

use crate::error::{FormatError, Place, Problem};
use crate::ids::PageIdx;
use crate::metadata::Flags;
use crate::page_layout::{DESCRIPTORS_OFFSET, DESCRIPTORS_SIZE};

/// Bytes of type and length before a payload.
pub const HEADER_SIZE: usize = 5;

/// Type numbers on disk.
pub mod kind {
    /// Ends the page if its length is 0.
    pub const PADDING: u8 = 0;
    /// Run-length list of clusters.
    pub const EXTENT_RLE: u8 = 1;
    /// The user's xattr.
    pub const XATTR: u8 = 2;
    /// Flags.
    pub const FLAGS: u8 = 3;
    /// The store's own xattr.
    pub const INTERNAL_XATTR: u8 = 4;
    /// Table of extent pages.
    pub const EXTENT_TABLE: u8 = 5;
    /// The one descriptor of an extent page.
    pub const EXTENT_PAGE: u8 = 6;
}

/// One decoded descriptor, borrowing from its page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Descriptor<'a> {
    /// Runs of clusters in order: first cluster of the device (0: unallocated) and length in clusters.
    ExtentRle(Entries<'a>),
    /// A name and a value of the user's.
    Xattr(XattrRef<'a>),
    /// The three words of flags.
    Flags(Flags),
    /// A name and a value of the store's own.
    InternalXattr(XattrRef<'a>),
    /// Extent pages in order: page index (0: a run of missing ones) and number of pages.
    ExtentTable {
        /// Clusters of the whole blob.
        num_clusters: u64,
        /// Page index and count.
        entries: Entries<'a>,
    },
    /// A piece of the cluster map.
    ExtentPage {
        /// First cluster of the blob that it describes.
        start_cluster: u32,
        /// Clusters of the device, 0 for unallocated.
        clusters: Clusters<'a>,
    },
    /// A type this crate does not know. SPDK skips it when opening and refuses it when recovering.
    Unknown {
        /// The type.
        kind: u8,
        /// The payload.
        payload: &'a [u8],
    },
}

/// Name and value of an xattr descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XattrRef<'a> {
    /// The name, without a NUL.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Pairs of `u32` inside a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entries<'a>(&'a [[u8; 8]]);

impl<'a> Entries<'a> {
    /// The pairs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + 'a {
        self.0.iter().map(|&[a, b, c, d, e, f, g, h]| {
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
        })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Cluster numbers inside an extent page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clusters<'a>(&'a [[u8; 4]]);

impl<'a> Clusters<'a> {
    /// The numbers in order, 0 for unallocated.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.0.iter().map(|&raw| u32::from_le_bytes(raw))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A descriptor's bytes.
struct Frame<'a> {
    kind: u8,
    payload: &'a [u8],
    place: Place,
}

/// Walks the descriptors of a page; ends after the first error.
#[derive(Clone, Debug)]
pub struct Descriptors<'a> {
    bytes: &'a [u8; DESCRIPTORS_SIZE],
    page: PageIdx,
    page_offset: u64,
    at: usize,
}

impl<'a> Descriptors<'a> {
    pub(crate) fn new(bytes: &'a [u8; DESCRIPTORS_SIZE], page: PageIdx, page_offset: u64) -> Descriptors<'a> {
        Descriptors { bytes, page, page_offset, at: 0 }
    }

    /// The place of the descriptor that the next call of `next` will yield.
    pub fn place(&self) -> Place {
        Place::Descriptor {
            page: self.page,
            offset: self.page_offset + (DESCRIPTORS_OFFSET + self.at.min(DESCRIPTORS_SIZE)) as u64,
        }
    }

    /// Type and payload of the next descriptor that is not padding.
    fn frame(&mut self) -> Option<Result<Frame<'a>, FormatError>> {
        loop {
            let place = self.place();
            let rest = self.bytes.get(self.at..)?;
            let &[kind, a, b, c, d] = rest.first_chunk::<HEADER_SIZE>()?;
            let length = u32::from_le_bytes([a, b, c, d]);
            if kind == kind::PADDING && length == 0 {
                return None;
            }
            let room = rest.len() - HEADER_SIZE;
            if length as usize > room {
                self.at = DESCRIPTORS_SIZE;
                let expected = format!("at most {room:#x}, the bytes left in the page");
                return Some(Err(Problem::field("descriptor length", length, expected).at(place)));
            }
            self.at += HEADER_SIZE + length as usize;
            if kind != kind::PADDING {
                let payload = &rest[HEADER_SIZE..HEADER_SIZE + length as usize];
                return Some(Ok(Frame { kind, payload, place }));
            }
        }
    }
}

impl<'a> Iterator for Descriptors<'a> {
    type Item = Result<Descriptor<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Frame { kind, payload, place } = match self.frame()? {
            Ok(frame) => frame,
            Err(error) => return Some(Err(error)),
        };
        let decoded = decode(kind, payload).map_err(|problem| problem.at(place));
        if decoded.is_err() {
            self.at = DESCRIPTORS_SIZE;
        }
        Some(decoded)
    }
}

fn decode(kind: u8, payload: &[u8]) -> Result<Descriptor<'_>, Problem> {
    match kind {
        kind::EXTENT_RLE => match payload.as_chunks::<8>() {
            (pairs, []) if !pairs.is_empty() => Ok(Descriptor::ExtentRle(Entries(pairs))),
            _ => Err(wrong_length("extent list length", payload, "a multiple of 8, not 0")),
        },
        kind::XATTR => decode_xattr(payload).map(Descriptor::Xattr),
        kind::INTERNAL_XATTR => decode_xattr(payload).map(Descriptor::InternalXattr),
        kind::FLAGS => match payload.as_chunks::<8>() {
            (&[invalid, data, metadata], []) => Ok(Descriptor::Flags(Flags {
                invalid: u64::from_le_bytes(invalid),
                data_read_only: u64::from_le_bytes(data),
                metadata_read_only: u64::from_le_bytes(metadata),
            })),
            _ => Err(wrong_length("flags length", payload, "0x18")),
        },
        kind::EXTENT_TABLE => match payload.as_chunks::<8>() {
            (&[num_clusters, ref pairs @ ..], []) => Ok(Descriptor::ExtentTable {
                num_clusters: u64::from_le_bytes(num_clusters),
                entries: Entries(pairs),
            }),
            _ => Err(wrong_length("extent table length", payload, "8 and a multiple of 8")),
        },
        kind::EXTENT_PAGE => match payload.as_chunks::<4>() {
            // No clusters at all: the blob was being shrunk down to where this page begins.
            (&[start, ref clusters @ ..], []) => Ok(Descriptor::ExtentPage {
                start_cluster: u32::from_le_bytes(start),
                clusters: Clusters(clusters),
            }),
            _ => Err(wrong_length("extent page length", payload, "a multiple of 4, at least 4")),
        },
        kind => Ok(Descriptor::Unknown { kind, payload }),
    }
}

fn decode_xattr(payload: &[u8]) -> Result<XattrRef<'_>, Problem> {
    let Some((&[a, b, c, d], text)) = payload.split_first_chunk::<4>() else {
        return Err(wrong_length("xattr length", payload, "at least 4"));
    };
    let (name, value) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    if usize::from(name) + usize::from(value) != text.len() {
        let expected = format!("{:#x}, name and value and 4", usize::from(name) + usize::from(value) + 4);
        return Err(wrong_length("xattr length", payload, &expected));
    }
    let (name, value) = text.split_at(usize::from(name));
    Ok(XattrRef { name, value })
}

fn wrong_length(field: &'static str, payload: &[u8], expected: &str) -> Problem {
    Problem::field(field, payload.len() as u64, expected)
}
