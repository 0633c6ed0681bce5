//! A store with changes kept in memory, so that a repair can be tried before anything is written.

use std::collections::BTreeMap;

use super::Medium;
use crate::change::Change;
use crate::page::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;

/// A medium as it would be after some changes.
#[derive(Clone)]
pub(super) struct Overlay<'a> {
    below: &'a dyn Medium,
    /// Bytes of the medium that belong to metadata; the rest is not changed.
    metadata: u64,
    pages: BTreeMap<u64, [u8; PAGE_SIZE]>,
    changes: Vec<Change>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(below: &'a dyn Medium, metadata: u64) -> Overlay<'a> {
        Overlay { below, metadata, pages: BTreeMap::new(), changes: Vec::new() }
    }

    /// Applies changes of metadata. Data stays: a freed cluster keeps its contents.
    pub(super) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match &change {
                Change::Write { offset, bytes } => self.put(*offset, bytes.len() as u64, Some(bytes)),
                Change::Zero { offset, .. } | Change::Unmap { offset, .. } if *offset >= self.metadata => {
                    continue;
                }
                Change::Zero { offset, len } | Change::Unmap { offset, len } => self.put(*offset, *len, None),
                Change::Flush => {}
            }
            self.changes.push(change);
        }
    }

    /// True if nothing has changed.
    pub(super) fn is_as_before(&self) -> bool {
        self.pages.iter().all(|(&number, page)| {
            let mut before = [0; PAGE_SIZE];
            self.below.read(number * PAGE, &mut before) && before == *page
        })
    }

    /// What was applied, in order.
    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Overwrites a range with bytes, or zeroes.
    fn put(&mut self, offset: u64, len: u64, bytes: Option<&[u8]>) {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let (page, within) = (at / PAGE, (at % PAGE) as usize);
            let n = (PAGE_SIZE - within).min((end - at) as usize);
            let below = self.below;
            let page = self.pages.entry(page).or_insert_with(|| {
                let mut known = [0; PAGE_SIZE];
                // An unreadable page is overwritten whole, or counts as zeroes.
                let _ = below.read(page * PAGE, &mut known);
                known
            });
            let from = (at - offset) as usize;
            match bytes {
                Some(bytes) => page[within..within + n].copy_from_slice(&bytes[from..from + n]),
                None => page[within..within + n].fill(0),
            }
            at += n as u64;
        }
    }
}

impl Medium for Overlay<'_> {
    fn bytes(&self) -> u64 {
        self.below.bytes()
    }

    fn block_size(&self) -> u32 {
        self.below.block_size()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let mut read = true;
        // A range with an unreadable page can be read once that page has been written.
        if !self.below.read(offset, into) {
            for (chunk, at) in into.chunks_mut(PAGE_SIZE).zip((offset..).step_by(PAGE_SIZE)) {
                read &= self.pages.contains_key(&(at / PAGE)) || self.below.read(at, chunk);
            }
        }
        let (first, end) = (offset / PAGE, (offset + into.len() as u64).div_ceil(PAGE));
        for (&number, page) in self.pages.range(first..end) {
            let start = (number * PAGE).max(offset);
            let stop = ((number + 1) * PAGE).min(offset + into.len() as u64);
            let from = (start - number * PAGE) as usize;
            let len = (stop - start) as usize;
            into[(start - offset) as usize..][..len].copy_from_slice(&page[from..from + len]);
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl Medium for Bytes {
        fn bytes(&self) -> u64 {
            self.0.len() as u64
        }

        fn block_size(&self) -> u32 {
            512
        }

        fn read(&self, offset: u64, into: &mut [u8]) -> bool {
            into.copy_from_slice(&self.0[offset as usize..][..into.len()]);
            true
        }
    }

    #[test]
    fn it_reads_as_if_the_changes_had_been_made_and_leaves_data_alone() {
        let below = Bytes((0..5 * PAGE_SIZE).map(|at| at as u8 | 1).collect());
        let changes = [
            Change::Write { offset: 4000, bytes: vec![0; 500] },
            Change::Zero { offset: 2 * PAGE, len: PAGE },
            Change::Flush,
            Change::Zero { offset: 4 * PAGE, len: PAGE },
        ];
        let mut expected = below.0.clone();
        changes[..2].iter().for_each(|change| change.apply(&mut expected));
        let mut overlay = Overlay::new(&below, 4 * PAGE);
        overlay.apply(changes.clone());
        for (offset, len) in [(0, 5 * PAGE_SIZE), (512, 512), (3584, 1024), (8192, 4096)] {
            let mut seen = vec![0; len];
            assert!(overlay.read(offset as u64, &mut seen));
            assert!(seen == expected[offset..offset + len], "{len} bytes at {offset}");
        }
        assert_eq!(overlay.into_changes(), changes[..3]);
    }
}
