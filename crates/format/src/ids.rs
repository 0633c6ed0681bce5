//! Checked numbers: blob ids, metadata page indices, cluster indices.
//!
//! Plain values without owner; they exist so that a page index is never passed where a cluster is meant.

use std::fmt;

/// The high word of every blob id.
const BLOB_ID_HIGH: u64 = 0x1_0000_0000;

/// Index of a metadata page inside the metadata region (not a page of the device).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageIdx(pub u32);

/// Index of a cluster of the device; cluster `n` begins at byte `n * cluster_size`.
///
/// Cluster 0 holds the super block, so 0 inside an extent means "not allocated" and is never a `ClusterIdx`
/// handed out by a cluster map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterIdx(pub u32);

/// Id of a blob as stored on disk: `0x1_0000_0000 | index of its root page`.
///
/// A value read from disk may be anything; [`BlobId::root_page`] tells whether it can be a blob's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(u64);

impl BlobId {
    /// The id of the blob whose root is this page.
    pub const fn from_page(page: PageIdx) -> BlobId {
        BlobId(BLOB_ID_HIGH | page.0 as u64)
    }

    /// An id as found on disk or typed by a user; may be invalid.
    pub const fn from_raw(raw: u64) -> BlobId {
        BlobId(raw)
    }

    /// The number as stored.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The root page of this blob, or `None` if the id is invalid.
    pub const fn root_page(self) -> Option<PageIdx> {
        if self.0 & !0xFFFF_FFFF == BLOB_ID_HIGH { Some(PageIdx(self.0 as u32)) } else { None }
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PageIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ClusterIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_id_names_its_root_page_and_nothing_else_is_one() {
        assert_eq!(BlobId::from_page(PageIdx(4)).raw(), 0x1_0000_0004);
        assert_eq!(BlobId::from_raw(0x1_0000_0004).root_page(), Some(PageIdx(4)));
        for raw in [0, 4, 0x2_0000_0004, u64::MAX, u64::MAX - 1] {
            assert_eq!(BlobId::from_raw(raw).root_page(), None, "{raw:#x}");
        }
    }
}
