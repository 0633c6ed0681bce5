//! A fixed-length set of small numbers: used pages, used clusters, used blob ids.

use std::ops::Range;

/// A bitmap of a length fixed when made; bits beyond the length read as clear and cannot be set.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bitmap {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl Bitmap {
    /// All bits clear.
    pub fn new(len: u32) -> Bitmap {
        Bitmap { words: vec![0; len.div_ceil(64) as usize], len, ones: 0 }
    }

    /// From the bytes of a mask, least significant bit first; missing bytes count as zero.
    pub fn from_bytes(bytes: &[u8], len: u32) -> Bitmap {
        let mut map = Bitmap::new(len);
        for (word, chunk) in map.words.iter_mut().zip(bytes.chunks(8)) {
            let mut raw = [0; 8];
            raw[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(raw);
        }
        if !len.is_multiple_of(64)
            && let Some(last) = map.words.last_mut()
        {
            *last &= (1 << (len % 64)) - 1;
        }
        map.ones = map.words.iter().map(|word| word.count_ones()).sum();
        map
    }

    /// Some of the bytes of a mask, least significant bit first; zeroes beyond the end.
    pub fn bytes(&self, range: Range<usize>) -> Vec<u8> {
        let words = self.words.iter().take(range.end.div_ceil(8)).skip(range.start / 8);
        let bytes = words.flat_map(|word| word.to_le_bytes()).skip(range.start % 8);
        let mut bytes: Vec<u8> = bytes.collect();
        bytes.resize(range.len(), 0);
        bytes
    }

    /// Number of bits.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the bitmap has no bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of bits set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether a bit is set; false beyond the end.
    pub fn get(&self, index: u32) -> bool {
        index < self.len && self.words[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    /// Sets a bit; true if it was clear before. Beyond the end nothing happens and the answer is false.
    pub fn set(&mut self, index: u32) -> bool {
        if index >= self.len {
            return false;
        }
        let word = &mut self.words[(index / 64) as usize];
        let fresh = *word >> (index % 64) & 1 == 0;
        *word |= 1 << (index % 64);
        self.ones += u32::from(fresh);
        fresh
    }

    /// Sets `count` bits from `from` on if all of them exist and are clear. Otherwise changes nothing and
    /// returns false.
    pub fn set_clear_range(&mut self, from: u32, count: u32) -> bool {
        let Some(end) = from.checked_add(count).filter(|&end| end <= self.len) else { return false };
        let masks = (from / 64..end.div_ceil(64)).map(|word| {
            let first = from.saturating_sub(word * 64);
            let last = (end - word * 64).min(64);
            (word as usize, (u64::MAX << first) & (u64::MAX >> (64 - last)))
        });
        if count == 0 || masks.clone().any(|(word, mask)| self.words[word] & mask != 0) {
            return count == 0;
        }
        masks.for_each(|(word, mask)| self.words[word] |= mask);
        self.ones += count;
        true
    }

    /// Clears a bit; true if it was set before.
    pub fn clear(&mut self, index: u32) -> bool {
        if !self.get(index) {
            return false;
        }
        self.words[(index / 64) as usize] &= !(1 << (index % 64));
        self.ones -= 1;
        true
    }

    /// Sets every bit.
    pub fn fill(&mut self) {
        self.words.fill(u64::MAX);
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last = (1 << (self.len % 64)) - 1;
        }
        self.ones = self.len;
    }

    /// Sets every bit that is set in the other one, up to this one's length.
    pub fn union(&mut self, other: &Bitmap) {
        for (at, &word) in other.words.iter().enumerate() {
            let first = at as u32 * 64;
            // Bits beyond this one's end do not belong here.
            let mask = match self.len.saturating_sub(first) {
                0 => return,
                left @ 1..64 => (1 << left) - 1,
                _ => u64::MAX,
            };
            let own = &mut self.words[at];
            let fresh = word & mask & !*own;
            *own |= fresh;
            self.ones += fresh.count_ones();
        }
    }

    /// Makes the bitmap longer, the new bits clear; never shorter.
    pub fn grow(&mut self, len: u32) {
        if len > self.len {
            self.words.resize(len.div_ceil(64) as usize, 0);
            self.len = len;
        }
    }

    /// The lowest clear bit at or after `from`.
    pub fn first_clear(&self, from: u32) -> Option<u32> {
        self.find(from, |word| !word)
    }

    /// The lowest set bit at or after `from`.
    pub fn first_set(&self, from: u32) -> Option<u32> {
        self.find(from, |word| word)
    }

    /// The indices of all set bits, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let found = self.first_set(from)?;
            from = found + 1;
            Some(found)
        })
    }

    fn find(&self, from: u32, view: impl Fn(u64) -> u64) -> Option<u32> {
        if from >= self.len {
            return None;
        }
        let first = (from / 64) as usize;
        let mut mask = u64::MAX << (from % 64);
        for (at, &word) in self.words.iter().enumerate().skip(first) {
            let bits = view(word) & mask;
            if bits != 0 {
                let index = at as u32 * 64 + bits.trailing_zeros();
                return (index < self.len).then_some(index);
            }
            mask = u64::MAX;
        }
        None
    }
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitmap({} of {} set)", self.ones, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_and_bits_are_the_same_set(len in 0_u32..300, picks in proptest::collection::btree_set(0_u32..300, 0..60)) {
            let mut map = Bitmap::new(len);
            for &pick in &picks {
                prop_assert_eq!(map.set(pick), pick < len);
            }
            let expected: Vec<u32> = picks.iter().copied().filter(|&pick| pick < len).collect();
            prop_assert_eq!(map.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(map.count() as usize, expected.len());
            let bytes = map.bytes(0..50);
            prop_assert_eq!(&Bitmap::from_bytes(&bytes, len), &map);
            for at in 0..=50 {
                prop_assert_eq!(&[map.bytes(0..at), map.bytes(at..50)].concat(), &bytes);
            }
            for other in [Bitmap::new(len / 2), Bitmap::new(len + 70)] {
                let (mut both, mut more) = (map.clone(), other.clone());
                more.fill();
                both.union(&more);
                let want = expected.iter().copied().chain(0..more.len().min(len)).collect::<std::collections::BTreeSet<_>>();
                prop_assert_eq!(both.iter().collect::<Vec<_>>(), want.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(both.count() as usize, want.len());
            }
            let clear: Vec<u32> = (0..len).filter(|bit| !expected.contains(bit)).collect();
            prop_assert_eq!(map.first_clear(0), clear.first().copied());
        }
    }

    proptest! {
        #[test]
        fn a_range_is_set_as_a_whole_or_not_at_all(
            len in 0_u32..300, from in 0_u32..320, count in 0_u32..320, set in proptest::option::of(0_u32..300),
        ) {
            let mut map = Bitmap::new(len);
            if let Some(bit) = set {
                map.set(bit);
            }
            let mut expected = map.clone();
            let free = from + count <= len && (from..from + count).all(|bit| !map.get(bit));
            if free {
                for bit in from..from + count {
                    expected.set(bit);
                }
            }
            prop_assert_eq!(map.set_clear_range(from, count), free);
            prop_assert_eq!(&map, &expected);
            prop_assert_eq!(map.count() as usize, map.iter().count());
        }
    }

    #[test]
    fn garbage_behind_the_last_bit_of_a_mask_is_not_part_of_the_set() {
        assert_eq!(Bitmap::from_bytes(&[0xFF], 3).count(), 3);
    }
}
