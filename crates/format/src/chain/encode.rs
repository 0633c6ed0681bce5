//! Encodes values to pages.

use crate::cluster_map::{CLUSTERS_PER_EXTENT_PAGE, ClusterMap};
use crate::descriptor::kind;
use crate::ids::{BlobId, PageIdx};
use crate::metadata::{BlobMetadata, Flags, Xattr};
use crate::page::{DESCRIPTORS_SIZE, Page};

/// The chain of a blob's metadata, root first: neither linked nor sealed, since the caller decides where
/// pages 1.. go (see [`link`]). Extent pages are not part of it; a leaf without a page counts as missing. The
/// flag for the kind of map follows the map.
pub fn to_pages(id: BlobId, metadata: &BlobMetadata) -> Vec<Page> {
    let mut chain = Chain::new(id);
    let flags = &metadata.flags;
    let mut payload = [0; 24];
    let invalid = match metadata.map.is_table() {
        true => flags.invalid | Flags::EXTENT_TABLE,
        false => flags.invalid & !Flags::EXTENT_TABLE,
    };
    let words = [invalid, flags.data_read_only, flags.metadata_read_only];
    for (place, word) in payload.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    chain.put(kind::FLAGS, &[&payload]);
    for xattr in metadata.xattrs.iter() {
        chain.put_xattr(kind::XATTR, xattr);
    }
    for xattr in metadata.internal.iter() {
        chain.put_xattr(kind::INTERNAL_XATTR, xattr);
    }
    match metadata.map.is_table() {
        true => chain.put_table(&metadata.map),
        false => chain.put_run_list(&metadata.map),
    }
    chain.pages
}

/// Links a chain whose pages will lie at these indices (root first) and seals every page.
///
/// # Panics
/// If there are not as many indices as pages.
pub fn link(pages: &mut [Page], at: &[PageIdx]) {
    assert_eq!(pages.len(), at.len(), "one index for every page of the chain");
    let nexts = at.iter().skip(1).copied().map(Some).chain([None]);
    for (page, next) in pages.iter_mut().zip(nexts) {
        page.set_next(next);
        page.seal();
    }
}

/// A sealed extent page: clusters `first_cluster ..` of its blob lie in these clusters of the device, 0 for
/// unallocated. `first_cluster` is a multiple of 512.
///
/// # Panics
/// If there are more than 512 clusters, which one extent page cannot describe.
pub fn extent_page(owner: BlobId, first_cluster: u32, clusters: &[u32]) -> Page {
    assert!(clusters.len() <= CLUSTERS_PER_EXTENT_PAGE as usize, "an extent page describes 512 clusters");
    let mut page = Page::new(owner, 0);
    let area = page.descriptor_bytes_mut();
    area[0] = kind::EXTENT_PAGE;
    area[1..5].copy_from_slice(&(4 + 4 * clusters.len() as u32).to_le_bytes());
    area[5..9].copy_from_slice(&first_cluster.to_le_bytes());
    for (place, cluster) in area[9..].as_chunks_mut::<4>().0.iter_mut().zip(clusters) {
        *place = cluster.to_le_bytes();
    }
    page.seal();
    page
}

/// Pages being filled.
struct Chain {
    id: BlobId,
    pages: Vec<Page>,
    used: usize,
}

impl Chain {
    fn new(id: BlobId) -> Chain {
        Chain { id, pages: vec![Page::new(id, 0)], used: 0 }
    }

    fn room(&self) -> usize {
        DESCRIPTORS_SIZE - self.used
    }

    fn next_page(&mut self) {
        let sequence = self.pages.len() as u32;
        self.pages.push(Page::new(self.id, sequence));
        self.used = 0;
    }

    /// Puts a descriptor whose payload is the concatenation of these parts, in the next page if need be.
    fn put(&mut self, kind: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if 5 + length > self.room() {
            self.next_page();
        }
        let used = self.used;
        let page = self.pages.last_mut().expect("a chain has at least its root page");
        let mut rest = &mut page.descriptor_bytes_mut()[used..];
        let header = [&[kind][..], &(length as u32).to_le_bytes()];
        for part in header.iter().chain(parts) {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        self.used += 5 + length;
    }

    fn put_xattr(&mut self, kind: u8, xattr: &Xattr) {
        let lengths = (xattr.name.len() as u32 | (xattr.value.len() as u32) << 16).to_le_bytes();
        self.put(kind, &[&lengths, &xattr.name, &xattr.value]);
    }

    /// Puts as many entries as fit into each page. SPDK writes no table at all for a blob of size 0 if the
    /// page has no room for an empty one, and then takes it for a run-length blob; here it starts a new page.
    fn put_table(&mut self, map: &ClusterMap) {
        let num_clusters = map.num_clusters().to_le_bytes();
        let mut entries = table_entries(map, map.slots()).peekable();
        loop {
            if self.room() < 13 {
                self.next_page();
            }
            let fit = (self.room() - 13) / 8;
            let piece: Vec<u8> = entries.by_ref().take(fit).flat_map(pair_bytes).collect();
            self.put(kind::EXTENT_TABLE, &[&num_clusters, &piece]);
            if entries.peek().is_none() {
                return;
            }
            self.next_page();
        }
    }

    fn put_run_list(&mut self, map: &ClusterMap) {
        let mut runs = rle_entries(map).peekable();
        while runs.peek().is_some() {
            if self.room() < 13 {
                self.next_page();
            }
            let fit = (self.room() - 5) / 8;
            let piece: Vec<u8> = runs.by_ref().take(fit).flat_map(pair_bytes).collect();
            self.put(kind::EXTENT_RLE, &[&piece]);
            if runs.peek().is_some() {
                self.next_page();
            }
        }
    }
}

fn pair_bytes((first, second): (u32, u32)) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_le_bytes());
    bytes[4..].copy_from_slice(&second.to_le_bytes());
    bytes
}

/// One entry for each extent page, and runs of missing ones between them.
fn table_entries(map: &ClusterMap, slots: u64) -> impl Iterator<Item = (u32, u32)> + '_ {
    let pages = map.extent_pages().map(|(slot, page)| (u64::from(slot), page.0));
    with_gaps(pages.map(|(slot, page)| (slot, page, 1)), slots)
}

fn rle_entries(map: &ClusterMap) -> impl Iterator<Item = (u32, u32)> + '_ {
    with_gaps(map.runs().map(|run| (run.start, run.cluster.0, run.length)), map.num_clusters())
}

/// Converts (position, value, length) in order into (value, length), with (0, length) for gaps up to `end`.
fn with_gaps(items: impl Iterator<Item = (u64, u32, u32)>, end: u64) -> impl Iterator<Item = (u32, u32)> {
    let mut at = 0;
    let gaps_and_items = items.chain([(end, 0, 0)]).flat_map(move |(start, value, length)| {
        // A blob has fewer than 2^32 clusters, so a gap fits its entry.
        let gap = start.saturating_sub(at).min(u64::from(u32::MAX)) as u32;
        at = start + u64::from(length);
        [(0, gap), (value, length)]
    });
    gaps_and_items.filter(|&(_, length)| length > 0)
}
