//! Descriptors: the records inside a metadata page, each a type, a length, and a payload.

use crate::error::FormatError;
use crate::ids::PageIdx;
use crate::page::DESCRIPTORS_SIZE;

/// One decoded descriptor, borrowing from its page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Descriptor<'a> {
    /// Runs of clusters in order: first cluster of the device (0: unallocated) and length in clusters.
    ExtentRle(Entries<'a>),
    /// A name and a value of the user's.
    Xattr(XattrRef<'a>),
    /// The three words of flags.
    Flags(crate::metadata::Flags),
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
pub struct Entries<'a>(pub(crate) &'a [u8]);

/// Cluster numbers inside an extent page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clusters<'a>(pub(crate) &'a [u8]);

/// Walks the descriptors of a page; ends behind the first error.
#[derive(Clone, Debug)]
pub struct Descriptors<'a> {
    #[allow(dead_code)]
    bytes: &'a [u8; DESCRIPTORS_SIZE],
    #[allow(dead_code)]
    page: PageIdx,
    #[allow(dead_code)]
    page_offset: u64,
}

impl<'a> Descriptors<'a> {
    pub(crate) fn new(bytes: &'a [u8; DESCRIPTORS_SIZE], page: PageIdx, page_offset: u64) -> Descriptors<'a> {
        Descriptors { bytes, page, page_offset }
    }
}

impl<'a> Iterator for Descriptors<'a> {
    type Item = Result<Descriptor<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
