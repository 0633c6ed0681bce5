//! One entry of a map: a word of 32 bits that says where a cluster lies.

use std::ops::Range;

/// Entries of a leaf.
pub(crate) const LEAF: u64 = 512;

/// Cuts a range of clusters of a blob where its leaves end.
pub(crate) fn by_leaf(clusters: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = clusters;
    let leaves = start / LEAF..if start < end { end.div_ceil(LEAF) } else { 0 };
    leaves.map(move |leaf| (leaf * LEAF).max(start)..((leaf + 1) * LEAF).min(end))
}

/// Marks an entry found in a parent, and a slot whose leaf is a parent's. Cluster numbers are smaller.
pub(super) const INHERITED: u32 = 1 << 31;

/// What an entry says about one cluster of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Not owned, and not looked for in the parents yet.
    Unknown,
    /// Owned: this cluster.
    Own(u32),
    /// Found in the nearest parent that owns it; `None` if the chain reads zeroes.
    Inherited(Option<u32>),
}

/// The cluster that a raw entry says the blob owns, 0 for none.
pub(crate) fn own(raw: u32) -> u32 {
    if raw & INHERITED == 0 { raw } else { 0 }
}

/// True if every cluster number of such a store differs from a marked one.
pub(crate) fn can_tell(total_clusters: u32) -> bool {
    total_clusters < INHERITED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_where_leaves_end() {
        let cut = |range: Range<u64>| by_leaf(range).map(|leaf| (leaf.start, leaf.end)).collect::<Vec<_>>();
        assert_eq!(cut(5..1030), [(5, 512), (512, 1024), (1024, 1030)]);
        assert_eq!(cut(512..1024), [(512, 1024)]);
        assert_eq!(cut(7..9), [(7, 9)]);
        assert_eq!(cut(9..9), []);
    }
}
