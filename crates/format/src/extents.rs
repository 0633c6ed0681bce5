//! The sources of all clusters of a blob, in runs.
//!
//! The same answer as [`resolve`](crate::resolve::resolve) gives cluster by cluster, but its cost depends on what
//! the maps of the blob and its parents contain, not on the size of the blob, which may be absurd.

use std::collections::BTreeSet;

use crate::ids::{BlobId, ClusterIdx};
use crate::metadata::Parent;
use crate::resolve::{ResolveError, Source};
use crate::store::{Blob, Store};

/// Neighbouring clusters of a blob that are read from the same place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent<'a> {
    /// First cluster of the blob.
    pub first: u64,
    /// Number of clusters, at least 1.
    pub clusters: u64,
    /// Their source: clusters of the device follow each other from the named one on. An error if the blob
    /// that would have them is missing.
    pub source: Result<Source<'a>, ResolveError>,
}

/// Clusters of a blob: first, and one past the last.
type Span = (u64, u64);

/// Returns the extents of a blob through its whole chain, in order and without holes; none if the blob is not in
/// the store.
pub fn extents(store: &Store, blob: BlobId) -> Vec<Extent<'_>> {
    let Some(mut level) = store.blob(blob) else { return Vec::new() };
    let mut visited = BTreeSet::from([blob]);
    let mut found = Vec::new();
    let mut gaps = vec![(0, level.metadata.map.num_clusters())];
    let rest = loop {
        gaps = cut_at_end(level, gaps, &mut found);
        gaps = fill_from(level, &gaps, &mut found);
        match &level.parent {
            _ if gaps.is_empty() => break Ok(Source::Zeroes),
            None => break Ok(Source::Zeroes),
            Some(Parent::External(id)) => break Ok(Source::External { id }),
            Some(Parent::Snapshot(parent)) if !visited.insert(*parent) => {
                break Err(ResolveError::Circle(blob));
            }
            Some(Parent::Snapshot(parent)) => match store.blob(*parent) {
                Some(above) => level = above,
                None => break Err(ResolveError::MissingParent { blob: level.id, parent: *parent }),
            },
        }
    };
    found.extend(gaps.iter().filter_map(|&gap| extent(gap, rest.clone())));
    found.sort_unstable_by_key(|extent| extent.first);
    found
}

fn extent((first, end): Span, source: Result<Source<'_>, ResolveError>) -> Option<Extent<'_>> {
    (first < end).then(|| Extent { first, clusters: end - first, source })
}

/// The range behind the end of a parent reads as zeroes, whatever is above that parent.
fn cut_at_end<'a>(level: &Blob, gaps: Vec<Span>, found: &mut Vec<Extent<'a>>) -> Vec<Span> {
    let end = level.metadata.map.num_clusters();
    let beyond = gaps.iter().filter(|gap| gap.1 > end);
    found.extend(beyond.filter_map(|gap| extent((gap.0.max(end), gap.1), Ok(Source::Zeroes))));
    gaps.into_iter().map(|gap| (gap.0, gap.1.min(end))).filter(|gap| gap.0 < gap.1).collect()
}

/// Fills gaps with clusters that this blob owns; the remaining gaps are its parent's.
fn fill_from<'a>(level: &Blob, gaps: &[Span], found: &mut Vec<Extent<'a>>) -> Vec<Span> {
    let mut left = Vec::new();
    let mut runs = level.metadata.map.runs().peekable();
    for &(mut at, end) in gaps {
        while at < end {
            while runs.next_if(|run| run.end() <= at).is_some() {}
            // The run stays: it may reach into the next gap as well.
            let Some(run) = runs.peek().filter(|run| run.start < end) else {
                left.push((at, end));
                break;
            };
            if run.start > at {
                left.push((at, run.start));
                at = run.start;
            }
            let stop = run.end().min(end);
            // A run is at most 2^32 clusters long, so is the distance from its start.
            let cluster = ClusterIdx(run.cluster.0 + (at - run.start) as u32);
            found.extend(extent((at, stop), Ok(Source::Cluster { owner: level.id, cluster })));
            at = stop;
        }
    }
    left
}
