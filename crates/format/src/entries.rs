//! The clusters named by an extent page, in as little memory as possible.
//!
//! A plain value, copied on change. A few runs are stored as runs, scattered clusters as one word each. A
//! Blobstore that shows the same words to other threads stores them itself ([`Words`]); a change here then
//! makes a separate copy.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Entries stored elsewhere, which may change.
pub trait Words: Any + Send + Sync + fmt::Debug {
    /// The entry at this place, below 512: a cluster of the device, 0 for unallocated.
    fn get(&self, at: usize) -> u32;

    /// The first entries, as many as fit.
    fn copy_to(&self, words: &mut [u32]) {
        words.iter_mut().enumerate().for_each(|(at, word)| *word = self.get(at));
    }
}

/// Clusters that follow each other on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Place of the first entry.
    pub at: u16,
    /// Number of entries, at least 1.
    pub length: u16,
    /// First cluster of the device, not 0.
    pub cluster: u32,
}

/// Up to 512 entries: clusters of the device, 0 for unallocated. Equal if all entries are.
#[derive(Clone)]
pub struct Entries {
    kind: Kind,
    len: u16,
}

#[derive(Clone)]
enum Kind {
    Pieces(Arc<[Piece]>),
    Words(Arc<[u32]>),
    Kept(Arc<dyn Words>),
}

impl Entries {
    /// The first `len` of these words.
    pub fn kept(words: Arc<dyn Words>, len: usize) -> Entries {
        Entries { kind: Kind::Kept(words), len: len as u16 }
    }

    /// A run in the middle of unallocated entries.
    pub(crate) fn run(len: usize, at: usize, length: usize, cluster: u32) -> Entries {
        let piece = Piece { at: at as u16, length: length as u16, cluster };
        Entries { kind: Kind::Pieces(Arc::new([piece])), len: len as u16 }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The external storage, if used.
    pub fn keeper(&self) -> Option<&dyn Words> {
        match &self.kind {
            Kind::Kept(words) => Some(&**words),
            Kind::Pieces(_) | Kind::Words(_) => None,
        }
    }

    /// One entry; 0 beyond the end.
    pub fn get(&self, at: usize) -> u32 {
        if at >= self.len() {
            return 0;
        }
        match &self.kind {
            Kind::Words(words) => words[at],
            Kind::Kept(words) => words.get(at),
            Kind::Pieces(pieces) => {
                let next = pieces.partition_point(|piece| piece.end() <= at);
                let found = pieces.get(next).filter(|piece| usize::from(piece.at) <= at);
                found.map_or(0, |piece| piece.cluster + (at - usize::from(piece.at)) as u32)
            }
        }
    }

    /// The allocated entries in order, neighbours that follow each other on the device joined.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let mut known = 0;
        let mut at = 0;
        std::iter::from_fn(move || {
            if let Kind::Pieces(pieces) = &self.kind {
                known += 1;
                return pieces.get(known - 1).copied();
            }
            let (first, cluster) =
                (at..self.len()).map(|at| (at, self.get(at))).find(|&(_, word)| word != 0)?;
            at = first + 1;
            while at < self.len() && u64::from(self.get(at)) == u64::from(cluster) + (at - first) as u64 {
                at += 1;
            }
            Some(Piece { at: first as u16, length: (at - first) as u16, cluster })
        })
    }

    /// Number of allocated entries.
    pub fn allocated(&self) -> usize {
        self.pieces().map(|piece| usize::from(piece.length)).sum()
    }

    /// All of them, as on disk.
    pub fn to_vec(&self) -> Vec<u32> {
        if let Kind::Words(words) = &self.kind {
            return words.to_vec();
        }
        let mut words = vec![0; self.len()];
        if let Kind::Kept(kept) = &self.kind {
            kept.copy_to(&mut words);
            return words;
        }
        for piece in self.pieces() {
            let place = &mut words[usize::from(piece.at)..piece.end()];
            place.iter_mut().zip(piece.cluster..).for_each(|(word, cluster)| *word = cluster);
        }
        words
    }

    /// Changes an entry; no effect beyond the end.
    pub fn set(&mut self, at: usize, cluster: u32) {
        if at >= self.len() || self.get(at) == cluster {
            return;
        }
        if !matches!(self.kind, Kind::Words(_)) {
            self.kind = Kind::Words(self.to_vec().into());
        }
        if let Kind::Words(words) = &mut self.kind {
            Arc::make_mut(words)[at] = cluster;
        }
    }

    /// Changes the number of entries, at most 512; new ones are unallocated.
    pub fn resize(&mut self, len: usize) {
        if len != self.len() {
            let mut words = self.to_vec();
            words.resize(len, 0);
            *self = Entries { kind: Kind::Words(words.into()), len: len as u16 };
        }
    }

    /// Stores them in as little memory as possible, unless they are stored externally.
    pub fn compact(&mut self) {
        if let Kind::Words(words) = &self.kind {
            *self = Entries::from(&**words);
        }
    }
}

impl From<&[u32]> for Entries {
    /// At most 512 of them.
    fn from(words: &[u32]) -> Entries {
        // Counted first: most pages are one run, or scattered, and neither should cost a growing list.
        // Without a branch, so that many words are checked at once.
        let starts = |&[one, next]: &[u32; 2]| u32::from(next != 0) & u32::from(!follow(one, next));
        let behind = words.array_windows().map(starts).sum::<u32>();
        let pieces = (behind + u32::from(words.first().is_some_and(|&word| word != 0))) as usize;
        let scattered = pieces * size_of::<Piece>() >= size_of_val(words);
        let mut entries = Entries { kind: Kind::Words(Arc::default()), len: words.len() as u16 };
        if scattered {
            entries.kind = Kind::Words(words.into());
            return entries;
        }
        if pieces == 1 {
            let allocated = |word: &u32| *word != 0;
            let first = words.iter().position(allocated).unwrap_or(0);
            let end = words.iter().rposition(allocated).map_or(first, |last| last + 1);
            return Entries::run(words.len(), first, end - first, words[first]);
        }
        let mut found = Vec::with_capacity(pieces);
        let mut at = 0;
        while let Some(skipped) = words[at..].iter().position(|&word| word != 0) {
            let first = at + skipped;
            at = first + 1;
            while at < words.len() && follow(words[at - 1], words[at]) {
                at += 1;
            }
            found.push(Piece { at: first as u16, length: (at - first) as u16, cluster: words[first] });
        }
        entries.kind = Kind::Pieces(found.into());
        entries
    }
}

fn follow(one: u32, next: u32) -> bool {
    // The number after the last one is 0, which is not a cluster.
    (one != 0) & (one.wrapping_add(1) == next) & (next != 0)
}

impl Piece {
    /// One past the last entry.
    pub fn end(&self) -> usize {
        usize::from(self.at) + usize::from(self.length)
    }
}

impl Default for Entries {
    fn default() -> Entries {
        Entries { kind: Kind::Pieces(Arc::default()), len: 0 }
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        self.len == other.len && self.pieces().eq(other.pieces())
    }
}

impl Eq for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries: ", self.len)?;
        f.debug_list().entries(self.pieces()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug)]
    struct Elsewhere(Vec<u32>);

    impl Words for Elsewhere {
        fn get(&self, at: usize) -> u32 {
            self.0[at]
        }
    }

    fn words() -> impl Strategy<Value = Vec<u32>> {
        let run = (1_usize..90, prop_oneof![Just(None), (1_u32..2000).prop_map(Some)]);
        proptest::collection::vec(run, 0..30).prop_map(|runs| {
            let mut words: Vec<u32> = runs
                .into_iter()
                .flat_map(|(length, first)| {
                    (0..length).map(move |i| first.map_or(0, |first| first + i as u32))
                })
                .collect();
            words.truncate(512);
            words
        })
    }

    proptest! {
        #[test]
        fn every_way_to_keep_entries_says_the_same(words in words(), at in 0_usize..512, to in 0_u32..9, len in 0_usize..512) {
            let compact = Entries::from(words.as_slice());
            let kept = Entries::kept(Arc::new(Elsewhere(words.clone())), words.len());
            let spread = |entries: &Entries| (0..entries.len()).map(|at| entries.get(at)).collect::<Vec<_>>();
            for mut entries in [compact.clone(), kept] {
                prop_assert_eq!(&entries, &compact);
                prop_assert_eq!(spread(&entries), words.clone());
                prop_assert_eq!(entries.to_vec(), words.clone());
                prop_assert_eq!(entries.allocated(), words.iter().filter(|&&word| word != 0).count());
                let mut model = words.clone();
                entries.set(at, to);
                model.get_mut(at).into_iter().for_each(|word| *word = to);
                prop_assert_eq!(spread(&entries), model.clone());
                entries.resize(len);
                model.resize(len, 0);
                entries.compact();
                prop_assert_eq!(spread(&entries), model);
            }
        }
    }

    #[test]
    fn a_run_takes_one_piece_and_scattered_entries_a_word_each() {
        let run: Vec<u32> = (7..519).collect();
        assert!(matches!(&Entries::from(run.as_slice()).kind, Kind::Pieces(pieces) if pieces.len() == 1));
        let scattered: Vec<u32> = (0..512).map(|at| 9000 - 2 * at).collect();
        assert!(matches!(Entries::from(scattered.as_slice()).kind, Kind::Words(_)));
    }
}
