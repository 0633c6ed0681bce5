//! Errors in the bytes of an image: which structure, at which byte, what was expected.

use crate::ids::{BlobId, PageIdx};
use crate::mask_kind::MaskKind;
use std::fmt;

/// A structure of an image and where it begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// The super block, always at byte 0.
    SuperBlock,
    /// One of the three masks.
    Mask {
        /// Which one.
        kind: MaskKind,
        /// Byte of the image where it begins.
        offset: u64,
    },
    /// A metadata page.
    Page {
        /// Its index in the metadata region.
        index: PageIdx,
        /// Byte of the image where it begins.
        offset: u64,
    },
    /// A descriptor inside a metadata page.
    Descriptor {
        /// The page that holds it.
        page: PageIdx,
        /// Byte of the image where the descriptor begins.
        offset: u64,
    },
}

impl Place {
    /// Byte of the image where the structure begins.
    pub fn offset(&self) -> u64 {
        match *self {
            Place::SuperBlock => 0,
            Place::Mask { offset, .. } | Place::Page { offset, .. } | Place::Descriptor { offset, .. } => {
                offset
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::SuperBlock => write!(f, "super block at byte 0"),
            Place::Mask { kind, offset } => write!(f, "{kind} mask at byte {offset}"),
            Place::Page { index, offset } => write!(f, "metadata page {index} at byte {offset}"),
            Place::Descriptor { page, offset } => {
                write!(f, "descriptor in metadata page {page} at byte {offset}")
            }
        }
    }
}

/// A structure of an image breaks a rule of the format.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct FormatError {
    /// The structure and where it begins.
    pub place: Place,
    /// The expected and the found value.
    pub problem: Problem,
}

/// A broken rule of a structure.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// Fewer bytes than the structure needs.
    #[error("needs {needed} bytes, only {found} are there")]
    TooShort {
        /// Bytes the structure needs.
        needed: u64,
        /// Bytes available.
        found: u64,
    },
    /// The CRC does not match the bytes.
    #[error("crc is {stored:#010x}, computed {computed:#010x}")]
    Crc {
        /// The CRC on disk.
        stored: u32,
        /// The CRC of the bytes on disk.
        computed: u32,
    },
    /// A field has an invalid value.
    #[error("{field} is {found:#x}, expected {expected}")]
    Field {
        /// Name of the field as the format page names it.
        field: &'static str,
        /// The value found.
        found: u64,
        /// The expected value.
        expected: String,
    },
    /// The device could not read the bytes.
    #[error("could not be read from the device")]
    Unreadable,
    /// A blob's metadata as a whole breaks a rule.
    #[error("{0}")]
    Rule(String),
    /// A chain leads to a page that already belongs to a chain, its own or another.
    #[error("blob {0} leads here, but the page already belongs to a chain")]
    Claimed(BlobId),
    /// A structure is missing.
    #[error("is empty, expected {0}")]
    Empty(String),
    /// A link leads to a blob that does not exist.
    #[error("names blob {0}, which is not in the store")]
    NoSuchBlob(BlobId),
}

impl Problem {
    /// An invalid value of a field.
    pub(crate) fn field(field: &'static str, found: impl Into<u64>, expected: impl Into<String>) -> Problem {
        Problem::Field { field, found: found.into(), expected: expected.into() }
    }

    /// Adds a place to this problem.
    pub(crate) fn at(self, place: Place) -> FormatError {
        FormatError { place, problem: self }
    }
}
