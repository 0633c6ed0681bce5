//! The readable contents of a store: every cluster of every blob, by checksum or location.
//!
//! Kept in runs, so that a blob whose damaged size is absurd takes no more time and memory than its map has entries.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use spindle_engine::sim::Image;
use spindle_format::crc::crc32c;
use spindle_format::extents::{Extent, extents};
use spindle_format::resolve::Source;
use spindle_format::{BlobId, Geometry, Store};

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
    /// Its clusters that are not zero: runs of equal ones, by their first cluster.
    pub cells: BTreeMap<u64, Run>,
}

/// Neighbouring clusters of a blob with equal content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of clusters.
    pub clusters: u64,
    /// The content of each.
    pub cell: Cell,
}

impl Contents {
    /// True if every cluster can be read.
    pub fn is_whole(&self) -> bool {
        self.cells.values().all(|run| run.cell != Cell::Unreadable)
    }

    /// The content of a cluster; `None` if it is zero.
    fn cell(&self, index: u64) -> Option<&Cell> {
        let (first, run) = self.cells.range(..=index).next_back()?;
        (index - first < run.clusters).then_some(&run.cell)
    }

    /// Where its content may change: the first cluster of each run, and the one behind it.
    fn bounds(&self) -> impl Iterator<Item = u64> {
        self.cells.iter().flat_map(|(first, run)| [*first, first + run.clusters])
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
    let blob = &store.blobs[&id];
    let mut cells = BTreeMap::new();
    for extent in extents(store, id) {
        let all = |cell| vec![(extent.first, Run { clusters: extent.clusters, cell })];
        cells.extend(match &extent.source {
            Ok(Source::Zeroes) => Vec::new(),
            Ok(Source::External { id }) => match ground.external.get(*id) {
                None => all(Cell::External(id.to_vec())),
                Some(bytes) => external(&store.geometry, bytes, &extent),
            },
            Ok(Source::Cluster { cluster, .. }) => {
                let size = u64::from(store.geometry.cluster_size());
                let first = store.geometry.cluster_offset(*cluster);
                let offsets = (0..extent.clusters).map(|at| first + at * size);
                single(extent.first, offsets.map(|offset| ground.checksum(image, offset, size)))
            }
            Err(_) => all(Cell::Unreadable),
        });
    }
    let xattrs = blob.metadata.xattrs.iter();
    let xattrs = xattrs.map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec())).collect();
    Contents { clusters: blob.metadata.map.num_clusters(), xattrs, cells }
}

/// Runs of one cluster each, from their checksums.
fn single(first: u64, sums: impl Iterator<Item = Option<u32>>) -> Vec<(u64, Run)> {
    let runs = (first..).zip(sums);
    runs.filter_map(|(index, sum)| Some((index, Run { clusters: 1, cell: Cell::Bytes(sum?) }))).collect()
}

/// The part of an external snapshot that clusters of a blob show: zeroes beyond its end.
fn external(geometry: &Geometry, bytes: &[u8], extent: &Extent<'_>) -> Vec<(u64, Run)> {
    let size = geometry.cluster_size() as usize;
    let end = (bytes.len().div_ceil(size) as u64).min(extent.first + extent.clusters);
    let sums = (extent.first..end).map(|index| {
        let known = &bytes[index as usize * size..];
        let mut cluster = vec![0; size];
        let length = known.len().min(size);
        cluster[..length].copy_from_slice(&known[..length]);
        checksum(&cluster)
    });
    single(extent.first, sums)
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
    let allows = allowed.cells.iter().flat_map(|range| [range.start, range.end]);
    // Between two of these nothing changes.
    let places: BTreeSet<u64> = before.bounds().chain(after.bounds()).chain(allows).collect();
    let is_free = |index: &u64| allowed.cells.iter().any(|range| range.contains(index));
    for index in places.range(..end).filter(|index| !is_free(index)) {
        let (was, is) = (before.cell(*index), after.cell(*index));
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
        let runs = cells.into_iter().map(|(first, cell)| (first, Run { clusters: 1, cell }));
        Contents { clusters, xattrs: BTreeMap::new(), cells: runs.collect() }
    }

    fn run(clusters: u64, cell: Cell) -> Run {
        Run { clusters, cell }
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
    #[test]
    fn runs_of_a_blob_of_absurd_size_are_compared_however_they_are_cut() {
        let id = BlobId::from_raw(1 << 32);
        let of = |runs: &[(u64, Run)]| Contents {
            cells: runs.iter().cloned().collect(),
            ..contents(u32::MAX.into(), [])
        };
        let outside = Cell::External(b"one".to_vec());
        let before = of(&[(5, run(1 << 31, outside.clone())), (1 << 31 | 5, run(9, Cell::Unreadable))]);
        let same = of(&[(5, run(7, outside.clone())), (12, run((1 << 31) - 7, outside.clone()))]);
        let none = Allowed::default();
        assert_eq!(lost(id, &before, Some(&same), &none), None);
        let shorter = of(&[(5, run((1 << 31) - 1, outside))]);
        let what = lost(id, &before, Some(&shorter), &none);
        assert!(what.is_some_and(|what| what.starts_with(&format!("cluster {} of", (1_u64 << 31) + 4))));
        let mut allowed = none;
        allowed.cells.push((1 << 31) + 4..(1 << 31) + 5);
        assert_eq!(lost(id, &before, Some(&shorter), &allowed), None);
    }
}
