//! A blob's metadata as its chain of pages, exactly as SPDK orders and breaks it, and back.

use crate::ids::{BlobId, PageIdx};
use crate::metadata::BlobMetadata;
use crate::page::Page;

/// The chain of a blob's metadata, root first: neither linked nor sealed, since where pages 1.. go is for
/// the caller to say (see [`link`]). Extent pages are not part of it.
pub fn to_pages(_id: BlobId, _metadata: &BlobMetadata) -> Vec<Page> {
    todo!()
}

/// Links a chain whose pages will lie at these indices (root first) and seals every page.
///
/// # Panics
/// If there are not as many indices as pages.
pub fn link(_pages: &mut [Page], _at: &[PageIdx]) {
    todo!()
}

/// A sealed extent page: clusters `first_cluster ..` of its blob lie in these clusters of the device, 0 for
/// unallocated; at most 512.
pub fn extent_page(_owner: BlobId, _first_cluster: u32, _clusters: &[u32]) -> Page {
    todo!()
}
