//! The sources of a blob's bytes: clusters of the image, an external snapshot, or zeroes.
//!
//! The same answer as `spindle_format::resolve` gives cluster by cluster, but made in runs: its cost depends
//! on the allocated clusters, not on the size of the blob, which may be absurd.

use spindle_format::resolve::ResolveError;
use spindle_format::{Blob, BlobId, ClusterIdx, Parent, Store};
use std::collections::BTreeSet;

/// Neighbouring clusters of a blob that are read from the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent<'a> {
    /// First cluster of the blob.
    pub(super) first: u64,
    /// Number of clusters.
    pub(super) clusters: u64,
    /// Their source.
    pub(super) origin: Origin<'a>,
}

/// The source of clusters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin<'a> {
    /// In clusters of the device, from this one on.
    Image(ClusterIdx),
    /// At the same offset of the external snapshot with this id.
    External(&'a [u8]),
    /// In no file: they read as zeroes.
    Zeroes,
}

/// Clusters of a blob: first, and one past the last.
type Span = (u64, u64);

/// The extents of a blob through its whole chain, in order and without holes.
pub(super) fn extents(store: &Store, blob: BlobId) -> Result<Vec<Extent<'_>>, ResolveError> {
    let mut level = store.blob(blob).ok_or(ResolveError::NoSuchBlob(blob))?;
    let mut visited = BTreeSet::from([blob]);
    let mut found = Vec::new();
    let mut gaps = vec![(0, level.metadata.map.num_clusters())];
    loop {
        gaps = cut_at_end(level, gaps, &mut found);
        gaps = fill_from(level, &gaps, &mut found);
        let origin = match &level.parent {
            _ if gaps.is_empty() => break,
            None => Origin::Zeroes,
            Some(Parent::External(id)) => Origin::External(id),
            Some(Parent::Snapshot(parent)) => {
                if !visited.insert(*parent) {
                    return Err(ResolveError::Circle(blob));
                }
                let missing = ResolveError::MissingParent { blob: level.id, parent: *parent };
                level = store.blob(*parent).ok_or(missing)?;
                continue;
            }
        };
        found.extend(gaps.iter().filter_map(|&gap| extent(gap, origin)));
        break;
    }
    found.sort_unstable_by_key(|extent| extent.first);
    Ok(found)
}

fn extent((first, end): Span, origin: Origin<'_>) -> Option<Extent<'_>> {
    (first < end).then(|| Extent { first, clusters: end - first, origin })
}

/// The range after the end of a parent reads as zeroes, even if the parents of that parent have data there.
fn cut_at_end<'a>(level: &Blob, gaps: Vec<Span>, found: &mut Vec<Extent<'a>>) -> Vec<Span> {
    let end = level.metadata.map.num_clusters();
    let beyond = gaps.iter().filter(|gap| gap.1 > end);
    found.extend(beyond.filter_map(|gap| extent((gap.0.max(end), gap.1), Origin::Zeroes)));
    gaps.into_iter().map(|gap| (gap.0, gap.1.min(end))).filter(|gap| gap.0 < gap.1).collect()
}

/// Fills gaps with clusters that this blob owns; the remaining gaps are its parent's.
fn fill_from<'a>(level: &Blob, gaps: &[Span], found: &mut Vec<Extent<'a>>) -> Vec<Span> {
    let mut left = Vec::new();
    let mut runs = level.metadata.map.runs().peekable();
    for &(mut at, end) in gaps {
        while at < end {
            while runs.next_if(|run| run.start + u64::from(run.length) <= at).is_some() {}
            // The run stays: it may reach into the next gap as well.
            let Some(run) = runs.peek().filter(|run| run.start < end) else {
                left.push((at, end));
                break;
            };
            if run.start > at {
                left.push((at, run.start));
                at = run.start;
            }
            let stop = (run.start + u64::from(run.length)).min(end);
            // A run is at most 2^32 clusters long, so is the distance from its start.
            let cluster = ClusterIdx(run.cluster.0 + (at - run.start) as u32);
            found.extend(extent((at, stop), Origin::Image(cluster)));
            at = stop;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::blob::image::ImageFile;
    use crate::cli::blob::source::load;
    use spindle_format::resolve::{Source, resolve};
    use std::fs::File;
    use std::io::copy;

    fn store(name: &str) -> Store {
        let packed = format!("{}/../../tests/fixtures/{name}.img.zst", env!("CARGO_MANIFEST_DIR"));
        let mut packed = ruzstd::decoding::StreamingDecoder::new(File::open(packed).unwrap()).unwrap();
        let mut image = tempfile::NamedTempFile::new().unwrap();
        copy(&mut packed, &mut image).unwrap();
        load(&ImageFile::open(image.path()).unwrap()).unwrap()
    }

    /// The extents must leave nothing out and agree with the format crate on every cluster.
    fn agree_with_resolve(store: &Store, blob: BlobId) {
        let mut next = 0;
        for extent in extents(store, blob).unwrap() {
            assert_eq!(extent.first, next, "blob {blob}");
            for index in extent.first..extent.first + extent.clusters {
                let expected = match resolve(store, blob, index).unwrap() {
                    Source::Zeroes => Origin::Zeroes,
                    Source::External { id } => Origin::External(id),
                    Source::Cluster { cluster, .. } => {
                        Origin::Image(ClusterIdx(cluster.0 - (index - extent.first) as u32))
                    }
                };
                assert_eq!(extent.origin, expected, "cluster {index} of blob {blob}");
            }
            next += extent.clusters;
        }
        assert_eq!(next, store.blob(blob).unwrap().metadata.map.num_clusters());
    }

    #[test]
    fn extents_and_resolve_are_of_one_opinion() {
        for name in ["hello", "lvs", "many"] {
            let store = store(name);
            store.blobs.keys().for_each(|&blob| agree_with_resolve(&store, blob));
        }
    }

    #[test]
    fn clusters_behind_the_end_of_a_shorter_parent_are_zeroes_whatever_is_above_it() {
        let mut store = store("lvs");
        let named = |store: &Store, name| store.blobs_named(name).next().unwrap().id;
        let (clone, parent) = (named(&store, "chain"), named(&store, "snap2"));
        store.blobs.get_mut(&parent).unwrap().parent = Some(Parent::External(b"elsewhere".to_vec()));
        for clusters in [0, 1, 3, 7] {
            store.blobs.get_mut(&parent).unwrap().metadata.map.resize(clusters);
            agree_with_resolve(&store, clone);
        }
    }

    #[test]
    fn parents_in_a_circle_or_missing_are_an_error_only_for_blobs_that_need_them() {
        let mut store = store("lvs");
        let named = |store: &Store, name| store.blobs_named(name).next().unwrap().id;
        let (chain, snap1, clone1) =
            (named(&store, "chain"), named(&store, "snap1"), named(&store, "clone1"));
        store.blobs.get_mut(&snap1).unwrap().parent = Some(Parent::Snapshot(chain));
        assert_eq!(extents(&store, chain), Err(ResolveError::Circle(chain)));
        let thick = named(&store, "inflated");
        store.blobs.get_mut(&thick).unwrap().parent = Some(Parent::Snapshot(snap1));
        store.blobs.remove(&snap1);
        let missing = ResolveError::MissingParent { blob: clone1, parent: snap1 };
        assert_eq!(extents(&store, clone1), Err(missing));
        agree_with_resolve(&store, thick);
    }
}
