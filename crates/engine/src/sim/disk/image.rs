//! Bytes of a disk as a tree of shared pages: cloning costs one counter, writing copies one path.

use std::fmt;
use std::sync::Arc;

/// Bytes per page of an image.
pub(super) const PAGE: usize = 4096;

const FAN_BITS: u32 = 4;
const FAN: usize = 1 << FAN_BITS;

pub(super) type Page = [u8; PAGE];

/// Part of an image. A hole of any size is one `Zero`.
#[derive(Clone)]
enum Node {
    Zero,
    Page(Arc<Page>),
    Branch(Arc<[Node; FAN]>),
}

const EMPTY: [Node; FAN] = [const { Node::Zero }; FAN];

/// Memory kept for the next operation: unshared pages, and working memory.
#[derive(Default)]
pub(super) struct Spare {
    pages: Vec<Arc<Page>>,
}

impl Spare {
    /// Bounds the memory that an idle disk keeps: 4 MiB.
    const MOST: usize = 1024;

    pub(super) fn keep(&mut self, page: Arc<Page>) {
        if Arc::strong_count(&page) == 1 && self.pages.len() < Spare::MOST {
            self.pages.push(page);
        }
    }

    /// A page filled by `fill`, which gets the old contents of a spare page, or zeroes.
    pub(super) fn page(&mut self, fill: impl FnOnce(&mut Page)) -> Arc<Page> {
        let mut page = self.pages.pop().unwrap_or_else(|| Arc::new([0; PAGE]));
        fill(Arc::get_mut(&mut page).expect("spare pages have one owner"));
        page
    }
}

/// The bytes of a disk, copy-on-write. A clone is cheap and never changes.
#[derive(Clone)]
pub struct Image {
    size: u64,
    /// Levels of branches above the pages.
    depth: u32,
    root: Node,
}

impl Image {
    /// `size` zero bytes.
    pub fn zeroed(size: u64) -> Image {
        let mut depth = 1;
        while size.div_ceil(PAGE as u64) > 1u64 << (FAN_BITS * depth) {
            depth += 1;
        }
        Image { size, depth, root: Node::Zero }
    }

    /// A copy of `bytes`; pages of zeroes take no room.
    pub fn from_bytes(bytes: &[u8]) -> Image {
        let mut image = Image::zeroed(bytes.len() as u64);
        for (i, chunk) in bytes.chunks(PAGE).enumerate() {
            if chunk.iter().any(|b| *b != 0) {
                image.write((i * PAGE) as u64, chunk);
            }
        }
        image
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Copies out. Panics past the end.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        self.check(offset, into.len() as u64);
        let mut done = 0;
        for (page, start, end) in pages(offset, into.len() as u64) {
            let target = &mut into[done..done + (end - start)];
            match self.page(page) {
                Some(bytes) => target.copy_from_slice(&bytes[start..end]),
                None => target.fill(0),
            }
            done += end - start;
        }
    }

    /// Copies in; other clones keep what they had. Panics past the end.
    pub fn write(&mut self, offset: u64, from: &[u8]) {
        self.check(offset, from.len() as u64);
        let mut rest = from;
        for (page, start, end) in pages(offset, from.len() as u64) {
            let (now, later) = rest.split_at(end - start);
            self.patch(page, start, now, &mut Spare::default());
            rest = later;
        }
    }

    /// Makes a range zero and frees its whole pages. Panics past the end.
    pub fn zero(&mut self, offset: u64, length: u64) {
        self.fill(offset, length, None, &mut Spare::default());
    }

    /// All bytes; for small images and for tools that want a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size).expect("fits the address space")];
        self.read(0, &mut bytes);
        bytes
    }

    /// The first byte in which the images differ; images of different size differ at the shorter's end.
    pub fn first_difference(&self, other: &Image) -> Option<u64> {
        let common = self.size.min(other.size);
        let found = self.difference_in(other, 0, common);
        found.or_else(|| (self.size != other.size).then_some(common))
    }

    /// True if a range is the same in both. Panics past the end of either.
    pub fn is_same(&self, other: &Image, offset: u64, length: u64) -> bool {
        self.check(offset, length);
        other.check(offset, length);
        self.difference_in(other, offset, length).is_none()
    }

    /// The first byte of a range in which the images differ; skips pages that both share.
    fn difference_in(&self, other: &Image, offset: u64, length: u64) -> Option<u64> {
        let (mut mine, mut theirs) = ([0; PAGE], [0; PAGE]);
        pages(offset, length).find_map(|(page, start, end)| {
            match (self.page(page), other.page(page)) {
                (Some(a), Some(b)) if Arc::ptr_eq(a, b) => return None,
                (None, None) => return None,
                _ => {}
            }
            let (at, length) = (page * PAGE as u64 + start as u64, end - start);
            self.read(at, &mut mine[..length]);
            other.read(at, &mut theirs[..length]);
            let differs = mine[..length].iter().zip(&theirs[..length]).position(|(a, b)| a != b);
            differs.map(|nth| at + nth as u64)
        })
    }

    fn check(&self, offset: u64, length: u64) {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|e| e <= self.size), "{length} bytes at {offset} of {}", self.size);
    }

    pub(super) fn page(&self, index: u64) -> Option<&Arc<Page>> {
        let mut node = &self.root;
        for level in (0..self.depth).rev() {
            match node {
                Node::Branch(children) => node = &children[child(index, level)],
                Node::Page(_) | Node::Zero => return None,
            }
        }
        if let Node::Page(page) = node { Some(page) } else { None }
    }

    fn slot(&mut self, index: u64) -> &mut Node {
        let mut node = &mut self.root;
        for level in (0..self.depth).rev() {
            if matches!(node, Node::Zero) {
                *node = Node::Branch(Arc::new(EMPTY));
            }
            let Node::Branch(children) = node else { unreachable!("pages lie only at the bottom") };
            node = &mut Arc::make_mut(children)[child(index, level)];
        }
        node
    }

    /// Replaces a whole page.
    pub(super) fn put(&mut self, index: u64, page: Arc<Page>, spare: &mut Spare) {
        if let Node::Page(old) = std::mem::replace(self.slot(index), Node::Page(page)) {
            spare.keep(old);
        }
    }

    /// Writes `bytes` at `start` within a page.
    pub(super) fn patch(&mut self, index: u64, start: usize, bytes: &[u8], spare: &mut Spare) {
        let slot = self.slot(index);
        if let Node::Page(page) = slot
            && let Some(page) = Arc::get_mut(page)
        {
            page[start..start + bytes.len()].copy_from_slice(bytes);
            return;
        }
        let fresh = spare.page(|page| {
            match &*slot {
                Node::Page(old) if bytes.len() < PAGE => page.copy_from_slice(&old[..]),
                Node::Page(_) => {}
                _ => page.fill(0),
            }
            page[start..start + bytes.len()].copy_from_slice(bytes);
        });
        *slot = Node::Page(fresh);
    }

    /// Makes a range zero, or a copy of the same bytes of `pattern`.
    pub(super) fn fill(&mut self, offset: u64, length: u64, pattern: Option<&Arc<Page>>, spare: &mut Spare) {
        self.check(offset, length);
        let (first, last) = (offset.next_multiple_of(PAGE as u64), (offset + length) / PAGE as u64);
        let whole = first / PAGE as u64..last;
        for (page, start, end) in pages(offset, length) {
            if !whole.contains(&page) {
                self.fill_part(page, start, end, pattern, spare);
            } else if let Some(pattern) = pattern {
                self.put(page, Arc::clone(pattern), spare);
            } else {
                break;
            }
        }
        if pattern.is_none() && whole.start < whole.end {
            prune(&mut self.root, self.depth, 0, &whole, spare);
            // The loop above stopped at the first whole page; the part after the last one remains.
            let tail = last * PAGE as u64;
            for (page, start, end) in pages(tail, offset + length - tail) {
                self.fill_part(page, start, end, None, spare);
            }
        }
    }

    fn fill_part(
        &mut self,
        page: u64,
        start: usize,
        end: usize,
        pattern: Option<&Arc<Page>>,
        spare: &mut Spare,
    ) {
        match pattern {
            Some(pattern) => self.patch(page, start, &pattern[start..end], spare),
            None if self.page(page).is_some() => self.patch(page, start, &[0; PAGE][start..end], spare),
            None => {}
        }
    }
}

/// Turns the pages of `gone` below `node` into a hole. `node` starts at page `base`.
fn prune(node: &mut Node, depth: u32, base: u64, gone: &std::ops::Range<u64>, spare: &mut Spare) {
    let span = 1u64 << (FAN_BITS * depth);
    if base >= gone.end || base + span <= gone.start || matches!(node, Node::Zero) {
        return;
    }
    if gone.start <= base && base + span <= gone.end {
        if let Node::Page(page) = std::mem::replace(node, Node::Zero) {
            spare.keep(page);
        }
        return;
    }
    let Node::Branch(children) = node else { return };
    for (i, child) in Arc::make_mut(children).iter_mut().enumerate() {
        prune(child, depth - 1, base + i as u64 * (span >> FAN_BITS), gone, spare);
    }
}

fn child(page: u64, level: u32) -> usize {
    (page >> (FAN_BITS * level)) as usize % FAN
}

/// The pages that a range touches, each with the part of it: (page, from, to).
pub(super) fn pages(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (page, start) = (at / PAGE as u64, (at % PAGE as u64) as usize);
        let stop = (end - page * PAGE as u64).min(PAGE as u64) as usize;
        at = (page + 1) * PAGE as u64;
        Some((page, start, stop))
    })
}

impl PartialEq for Image {
    fn eq(&self, other: &Image) -> bool {
        self.first_difference(other).is_none()
    }
}

impl Eq for Image {}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} bytes)", self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A change of an image, for a test against plain bytes.
    #[derive(Debug, Clone)]
    enum Change {
        Write(usize, Vec<u8>),
        Zero(usize, usize),
        Keep,
    }

    fn change(size: usize) -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..size, proptest::collection::vec(any::<u8>(), 0..9000)).prop_map(move |(at, mut bytes)| {
                bytes.truncate(size - at);
                Change::Write(at, bytes)
            }),
            (0..size, 0..size).prop_map(move |(at, n)| Change::Zero(at, n.min(size - at))),
            Just(Change::Keep),
        ]
    }

    proptest! {
        #[test]
        fn an_image_is_an_array_of_bytes_and_clones_keep_theirs(
            changes in proptest::collection::vec(change(300_000), 1..20)
        ) {
            let mut bytes = vec![0u8; 300_000];
            let mut image = Image::zeroed(300_000);
            let mut kept = Vec::new();
            for change in changes {
                match change {
                    Change::Write(at, data) => {
                        bytes[at..at + data.len()].copy_from_slice(&data);
                        image.write(at as u64, &data);
                    }
                    Change::Zero(at, n) => {
                        bytes[at..at + n].fill(0);
                        image.zero(at as u64, n as u64);
                    }
                    Change::Keep => kept.push((image.clone(), bytes.clone())),
                }
                prop_assert!(image.to_bytes() == bytes);
            }
            for (image, bytes) in kept {
                prop_assert!(image.to_bytes() == bytes);
                prop_assert!(Image::from_bytes(&bytes) == image);
            }
        }
    }

    #[test]
    fn a_huge_image_is_zeroed_and_compared_without_walking_it() {
        let mut image = Image::zeroed(1 << 50);
        image.write((1 << 49) + 5, b"far");
        let mut back = [0; 3];
        image.read((1 << 49) + 5, &mut back);
        assert_eq!(&back, b"far");
        image.zero(1, (1 << 50) - 1);
        image.read((1 << 49) + 5, &mut back);
        assert_eq!(back, [0; 3]);
    }

    #[test]
    fn the_first_difference_is_found() {
        let a = Image::zeroed(20_000);
        let mut b = a.clone();
        assert_eq!(a.first_difference(&b), None);
        b.write(9_001, &[0, 7]);
        assert_eq!(a.first_difference(&b), Some(9_002));
        assert_eq!(a.first_difference(&Image::zeroed(20_001)), Some(20_000));
        assert!(a.is_same(&b, 9_003, 10_997) && a.is_same(&b, 0, 9_002) && !a.is_same(&b, 9_000, 3));
    }
}
