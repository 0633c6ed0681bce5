//! Free clusters that may still hold the data of their last owner and must be cleared in the background.
//!
//! They count as free and may be given out before they are cleared: they are not known to read zero, so the next
//! owner zeroes them. Part of [`super::Space`]; does no I/O. Takes memory only once there are some.

use spindle_format::Bitmap;

/// The most clusters looked at by one search for some to clear.
const FARTHEST: usize = 4096;

/// How stale clusters are cleared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clearing {
    /// The device is told that they are not needed.
    Unmap,
    /// Zeroes are written.
    WriteZeroes,
}

/// The stale clusters of a store.
#[derive(Default)]
pub(super) struct Stale {
    unmap: Bitmap,
    zeroes: Bitmap,
    /// Those that are being cleared right now; they are not free meanwhile.
    in_work: u32,
    /// Where the next search begins.
    next: u32,
}

impl Stale {
    fn of(&mut self, how: Clearing) -> &mut Bitmap {
        match how {
            Clearing::Unmap => &mut self.unmap,
            Clearing::WriteZeroes => &mut self.zeroes,
        }
    }

    /// Adds a cluster of a store of `total` clusters.
    pub(super) fn add(&mut self, cluster: u32, total: u32, how: Clearing) {
        let map = self.of(how);
        map.grow(total);
        map.set(cluster);
    }

    /// A cluster that was given out.
    pub(super) fn forget(&mut self, cluster: u32) {
        self.unmap.clear(cluster);
        self.zeroes.clear(cluster);
    }

    /// Forgets those that would be unmapped: the device refuses that.
    pub(super) fn forget_unmaps(&mut self) {
        self.unmap = Bitmap::default();
    }

    /// How many there are, with those that are being cleared.
    pub(super) fn count(&self) -> u32 {
        self.unmap.count() + self.zeroes.count() + self.in_work
    }

    pub(super) fn in_work(&self) -> u32 {
        self.in_work
    }

    /// Some of them, at most `most`, in order and near each other; none if there are none.
    pub(super) fn some(&mut self, most: usize) -> Option<(Clearing, Vec<u32>)> {
        let how = if self.zeroes.count() > 0 { Clearing::WriteZeroes } else { Clearing::Unmap };
        let from = self.next;
        let map = self.of(how);
        let first = map.first_set(from).or_else(|| map.first_set(0))?;
        let near = |&cluster: &u32| (cluster - first) as usize <= FARTHEST;
        let mut at = Some(first);
        let next = std::iter::from_fn(|| {
            let found = at?;
            at = map.first_set(found + 1);
            Some(found)
        });
        let some: Vec<u32> = next.take_while(near).take(most.max(1)).collect();
        self.next = some.last().map_or(0, |last| last + 1);
        self.in_work += some.len() as u32;
        Some((how, some))
    }

    /// That many of those that [`Self::some`] gave are free again.
    pub(super) fn done(&mut self, count: u32) {
        self.in_work -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stale_cluster_is_given_to_be_cleared_once_by_the_method_it_came_with() {
        let mut stale = Stale::default();
        for cluster in [3, 4, 9, 90_000] {
            stale.add(cluster, 100_000, Clearing::Unmap);
        }
        stale.add(5, 100_000, Clearing::WriteZeroes);
        stale.forget(4);
        assert_eq!(stale.count(), 4);
        let mut given = Vec::new();
        while let Some((how, some)) = stale.some(2) {
            assert!(!some.is_empty());
            some.iter().for_each(|&cluster| stale.forget(cluster));
            stale.done(some.len() as u32);
            given.push((how, some));
        }
        let unmapped = |some| (Clearing::Unmap, some);
        // A search begins after the previous one, and wraps around to the start.
        let first = (Clearing::WriteZeroes, vec![5]);
        assert_eq!(given, [first, unmapped(vec![9]), unmapped(vec![90_000]), unmapped(vec![3])]);
        assert_eq!(stale.count(), 0);
    }
}
