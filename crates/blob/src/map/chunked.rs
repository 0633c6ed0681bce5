//! An array that grows without moving, so that readers on other threads need no lock.
//!
//! Chunk `k` holds 2^k elements and is made on first use.

use std::sync::OnceLock;

/// An array of up to 2^`CHUNKS` - 1 elements.
pub(crate) struct Chunked<T, const CHUNKS: usize> {
    chunks: [OnceLock<Box<[T]>>; CHUNKS],
}

impl<T, const CHUNKS: usize> Default for Chunked<T, CHUNKS> {
    fn default() -> Chunked<T, CHUNKS> {
        Chunked { chunks: [const { OnceLock::new() }; CHUNKS] }
    }
}

impl<T: Default, const CHUNKS: usize> Chunked<T, CHUNKS> {
    /// An element; `None` if its chunk does not exist.
    #[inline]
    pub(crate) fn get(&self, index: u64) -> Option<&T> {
        let (chunk, at) = place(index);
        Some(&self.chunks.get(chunk)?.get()?[at])
    }

    /// An element, which exists from now on.
    #[inline]
    pub(crate) fn get_or_init(&self, index: u64) -> &T {
        let (chunk, at) = place(index);
        let elements = self.chunks[chunk].get_or_init(|| (0..1_u64 << chunk).map(|_| T::default()).collect());
        &elements[at]
    }

    /// All elements that exist, each with its index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.iter_from(0)
    }

    /// Those at `index` and after it. Chunks that do not exist are passed over whole.
    pub(crate) fn iter_from(&self, index: u64) -> impl Iterator<Item = (u64, &T)> {
        let (first_chunk, at) = place(index);
        self.chunks
            .iter()
            .enumerate()
            .skip(first_chunk)
            .filter_map(|(chunk, elements)| Some((chunk, elements.get()?)))
            .flat_map(move |(chunk, elements)| {
                let skipped = if chunk == first_chunk { at } else { 0 };
                let first = (1_u64 << chunk) - 1 + skipped as u64;
                (first..).zip(elements[skipped..].iter())
            })
    }
}

/// The chunk of an element and the element's number in it.
#[inline]
fn place(index: u64) -> (usize, usize) {
    let chunk = (index + 1).ilog2();
    (chunk as usize, (index + 1 - (1 << chunk)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_index_has_an_element_of_its_own_that_is_found_again() {
        let array = Chunked::<AtomicU32, 16>::default();
        let some = [0, 1, 2, 3, 7, 8, 1000, 65534];
        for &index in &some {
            assert_eq!(array.get(index).map_or(0, |element| element.load(Ordering::Relaxed)), 0);
            array.get_or_init(index).store(index as u32 + 1, Ordering::Relaxed);
        }
        let set = array.iter().filter(|(_, element)| element.load(Ordering::Relaxed) != 0);
        let set: Vec<_> = set.map(|(index, element)| (index, element.load(Ordering::Relaxed))).collect();
        assert_eq!(set, some.map(|index| (index, index as u32 + 1)));
        for from in [0, 1, 4, 8, 9, 1000, 1001, 65534, 65535, 1 << 40] {
            let after = array.iter_from(from).map(|(index, _)| index);
            let exists = array.iter().map(|(index, _)| index).filter(|&index| index >= from);
            assert!(after.eq(exists), "from {from}");
        }
        assert!(Chunked::<AtomicU32, 4>::default().get(15).is_none(), "beyond its end");
    }
}
