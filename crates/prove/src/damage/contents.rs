//! The readable contents of a store: every cluster of every blob, by checksum or location.

use std::cell::RefCell;
use std::collections::BTreeMap;

use spindle_engine::sim::Image;
use spindle_format::crc::crc32c;
use spindle_format::resolve::{Source, resolve};
use spindle_format::{BlobId, Store};

/// The content of a cluster of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The checksum of its bytes.
    Bytes(u32),
    /// Read from an external snapshot that is not known, by its id.
    External(Vec<u8>),
    /// An error: the blob it reads through is missing.
    Unreadable,
}

/// The readable contents of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its size in clusters.
    pub clusters: u64,
    /// Its xattrs, by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Its clusters that are not zero.
    pub cells: BTreeMap<u64, Cell>,
}

impl Contents {
    /// True if every cluster can be read.
    pub fn is_whole(&self) -> bool {
        self.cells.values().all(|cell| *cell != Cell::Unreadable)
    }
}

/// The contents of all blobs.
pub type Readable = BTreeMap<BlobId, Contents>;

/// Checksums of clusters: shared by images that differ little, so that each is computed once.
pub struct Ground {
    image: Image,
    bytes_of_cluster: u64,
    known: RefCell<BTreeMap<u64, Option<u32>>>,
    /// The contents of external snapshots, by their ids.
    external: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Ground {
    /// Creates it from an image, from which others are made, its cluster size in bytes, and its external
    /// snapshots.
    pub fn new(image: Image, bytes_of_cluster: u64, external: BTreeMap<Vec<u8>, Vec<u8>>) -> Ground {
        Ground { image, bytes_of_cluster, known: RefCell::default(), external }
    }

    /// Returns the image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Returns the checksum of a range of an image; `None` if it is zero.
    fn checksum(&self, image: &Image, offset: u64, length: u64) -> Option<u32> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.image.size());
        let known = inside && length == self.bytes_of_cluster;
        let mine = known && image.is_same(&self.image, offset, length);
        if mine && let Some(known) = self.known.borrow().get(&offset) {
            return *known;
        }
        let mut bytes = vec![0; length as usize];
        image.read(offset, &mut bytes);
        let found = checksum(&bytes);
        if mine {
            self.known.borrow_mut().insert(offset, found);
        }
        found
    }
}

/// Returns the checksum of bytes; `None` if they are zero.
fn checksum(bytes: &[u8]) -> Option<u32> {
    bytes.iter().any(|byte| *byte != 0).then(|| crc32c(bytes))
}

/// Reads all blobs of the store in an image.
pub fn readable(ground: &Ground, image: &Image, store: &Store) -> Readable {
    store.blobs.keys().map(|id| (*id, contents(ground, image, store, *id))).collect()
}

fn contents(ground: &Ground, image: &Image, store: &Store, id: BlobId) -> Contents {
    let (geometry, blob) = (&store.geometry, &store.blobs[&id]);
    let clusters = blob.metadata.map.num_clusters();
    let cell = |index| match resolve(store, id, index) {
        Ok(Source::Zeroes) => None,
        Ok(Source::External { id }) => match ground.external.get(id) {
            None => Some(Cell::External(id.to_vec())),
            Some(bytes) => {
                let mut cluster = vec![0; geometry.cluster_size() as usize];
                let known = bytes.get(index as usize * cluster.len()..).unwrap_or(&[]);
                let length = known.len().min(cluster.len());
                cluster[..length].copy_from_slice(&known[..length]);
                checksum(&cluster).map(Cell::Bytes)
            }
        },
        Ok(Source::Cluster { cluster, .. }) => {
            let (offset, length) = (geometry.cluster_offset(cluster), u64::from(geometry.cluster_size()));
            ground.checksum(image, offset, length).map(Cell::Bytes)
        }
        Err(_) => Some(Cell::Unreadable),
    };
    let cells = (0..clusters).filter_map(|index| Some((index, cell(index)?))).collect();
    let xattrs = blob.metadata.xattrs.iter();
    let xattrs = xattrs.map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec())).collect();
    Contents { clusters, xattrs, cells }
}

/// The changes that a blob may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// It may be gone, or hold anything.
    pub anything: bool,
    /// It may have other xattrs.
    pub xattrs: bool,
    /// It may have another size; clusters within both sizes are unchanged.
    pub size: bool,
    /// These clusters may have changed.
    pub cells: Vec<std::ops::Range<u64>>,
}

/// Describes the first content of a blob that cannot be read any more, or has changed without permission.
pub fn lost(id: BlobId, before: &Contents, after: Option<&Contents>, allowed: &Allowed) -> Option<String> {
    if allowed.anything {
        return None;
    }
    let Some(after) = after else { return Some(format!("blob {id} is gone")) };
    if before.clusters != after.clusters && !allowed.size {
        return Some(format!("blob {id} had {} clusters, now {}", before.clusters, after.clusters));
    }
    if before.xattrs != after.xattrs && !allowed.xattrs {
        return Some(format!("blob {id} has other xattrs"));
    }
    let end = before.clusters.min(after.clusters);
    let places = before.cells.keys().chain(after.cells.keys()).filter(|index| **index < end);
    let is_free = |index: &u64| allowed.cells.iter().any(|range| range.contains(index));
    for index in places.filter(|index| !is_free(index)) {
        let (was, is) = (before.cells.get(index), after.cells.get(index));
        if was != is && was != Some(&Cell::Unreadable) {
            return Some(format!("cluster {index} of blob {id} read {was:?}, now {is:?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(clusters: u64, cells: impl IntoIterator<Item = (u64, Cell)>) -> Contents {
        Contents { clusters, xattrs: BTreeMap::new(), cells: cells.into_iter().collect() }
    }

    #[test]
    fn what_could_be_read_and_cannot_be_or_not_as_before_is_lost() {
        let id = BlobId::from_raw(1 << 32);
        let before = contents(3, [(0, Cell::Bytes(7)), (2, Cell::Unreadable)]);
        let lost = |after: &Contents, allowed: &Allowed| lost(id, &before, Some(after), allowed).is_some();
        let none = Allowed::default();
        assert!(!lost(&before, &none));
        assert!(super::lost(id, &before, None, &none).is_some());
        assert!(lost(&contents(2, [(0, Cell::Bytes(7))]), &none), "it is shorter");
        assert!(lost(&contents(3, [(2, Cell::Unreadable)]), &none), "cluster 0 is zero");
        assert!(lost(&contents(3, [(0, Cell::Bytes(7)), (1, Cell::Bytes(8))]), &none), "cluster 1 is not");
        assert!(!lost(&contents(3, [(0, Cell::Bytes(7))]), &none), "cluster 2 could not be read before");
        let other = contents(5, [(0, Cell::Bytes(9)), (4, Cell::Bytes(1))]);
        let mut allowed = Allowed { size: true, ..Allowed::default() };
        allowed.cells.push(0..1);
        assert!(!lost(&other, &allowed));
    }
}
