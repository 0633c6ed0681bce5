//! A store with changes kept in memory, so that a repair can be tried before anything is written.

use std::collections::BTreeMap;

use super::Medium;
use crate::change::Change;
use crate::crc::crc32c;
use crate::page::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;

/// 4096 bytes of a medium that some changes overwrite, wholly or in part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangedPage {
    /// The contents before; `None` if they cannot be read.
    pub before: Option<Box<[u8; PAGE_SIZE]>>,
    /// The contents after all changes.
    pub after: Box<[u8; PAGE_SIZE]>,
    /// CRC-32C of the contents after each change.
    pub sums: Vec<u32>,
}

/// A medium as it would be after some changes.
#[derive(Clone)]
pub(super) struct Overlay<'a> {
    below: &'a dyn Medium,
    /// Bytes of the medium that belong to metadata; the rest is not changed.
    metadata: u64,
    /// What has changed, by number of the page.
    pages: BTreeMap<u64, ChangedPage>,
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
        self.pages.values().all(|page| page.before.as_ref() == Some(&page.after))
    }

    /// What was applied, in order.
    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// The same, and the pages that it changes, by the bytes where they begin.
    pub(super) fn into_parts(self) -> (Vec<Change>, BTreeMap<u64, ChangedPage>) {
        let pages = self.pages.into_iter().map(|(number, page)| (number * PAGE, page));
        (self.changes, pages.collect())
    }

    /// Overwrites a range with bytes, or zeroes.
    fn put(&mut self, offset: u64, len: u64, bytes: Option<&[u8]>) {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let (page, within) = (at / PAGE, (at % PAGE) as usize);
            let n = (PAGE_SIZE - within).min((end - at) as usize);
            let below = self.below;
            let page = self.pages.entry(page).or_insert_with(|| ChangedPage::of(below, page * PAGE));
            let (from, now) = ((at - offset) as usize, &mut page.after[within..within + n]);
            match bytes {
                Some(bytes) => now.copy_from_slice(&bytes[from..from + n]),
                None => now.fill(0),
            }
            page.sums.push(crc32c(page.after.as_slice()));
            at += n as u64;
        }
    }
}

impl ChangedPage {
    /// A page that no change has touched yet. An unreadable one is overwritten whole, or counts as zeroes.
    fn of(medium: &dyn Medium, offset: u64) -> ChangedPage {
        let mut known = Box::new([0; PAGE_SIZE]);
        let before = medium.read(offset, known.as_mut_slice()).then(|| known.clone());
        let after = if before.is_some() { known } else { Box::new([0; PAGE_SIZE]) };
        ChangedPage { before, after, sums: Vec::new() }
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
            into[(start - offset) as usize..][..len].copy_from_slice(&page.after[from..from + len]);
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
        let (made, pages) = overlay.into_parts();
        assert_eq!(made, changes[..3]);
        assert_eq!(pages.keys().collect::<Vec<_>>(), [&0, &PAGE, &(2 * PAGE)]);
        for (&at, page) in &pages {
            let of = |bytes: &[u8]| bytes[at as usize..][..PAGE_SIZE].to_vec();
            assert!(page.before.as_deref().is_some_and(|before| before.as_slice() == of(&below.0)));
            assert!(page.after.as_slice() == of(&expected));
            assert_eq!(page.sums, [crc32c(&of(&expected))]);
        }
    }
}
