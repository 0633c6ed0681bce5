//! Decides which bytes of masks and metadata to read, and takes the results.

use super::records::{Records, is_lone_extent_page};
use super::{ByteRange, LoadOptions, Super};
use crate::bitmap::Bitmap;
use crate::descriptor::Descriptor;
use crate::error::{FormatError, Problem};
use crate::geometry::Geometry;
use crate::ids::PageIdx;
use crate::mask::{self, MaskKind};
use crate::page::Page;
use crate::store::DiskMasks;

/// Unwanted pages are read along if at most this many lie between wanted ones: one larger read costs less
/// than two.
const BRIDGE: u32 = 16;

/// Of the pages that the masks of a clean store call free, so many are read all the same: those that new blobs would
/// get. Masks that are older than the metadata, because the disk lost their last write, lack the newest blobs, and
/// these took the first free pages.
const FIRST_FREE: usize = 128;

/// How often links to pages outside the masks are followed before everything is read.
const MOST_ROUNDS: u32 = 8;

/// Reading masks and metadata pages.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) found: Super,
    pub(super) records: Records,
    /// The masks of a clean store, once all three are read and valid.
    pub(super) masks: Option<DiskMasks>,
    /// What is wrong with the masks of a store marked clean.
    pub(super) mask_errors: Vec<FormatError>,
    mask_reads: Vec<MaskRead>,
    /// For a store that was not unloaded cleanly: the mask of blob ids of its last clean unload, read if
    /// pages were found that may be damaged roots.
    old_ids: Option<MaskRead>,
    /// Metadata pages to be read, or read; `None` until the masks are read.
    wanted: Option<Bitmap>,
    /// Wanted pages not asked for yet.
    todo: Bitmap,
    /// How often links led to pages outside the masks.
    rounds: u32,
    /// Where the next search for wanted pages begins.
    cursor: u32,
    /// Pages outside the masks to which pages link that were read since links were last followed.
    linked: Bitmap,
    in_flight: usize,
    bytes_read: u64,
    max_read: usize,
    /// True if the masks must be ignored.
    forced: bool,
    /// True if the device can write a sector of a page alone, and so tear a page.
    pub(super) small_blocks: bool,
    /// True if the device tears no page.
    pub(super) whole_pages: bool,
    block_size: u64,
}

/// One mask being read, piece by piece.
#[derive(Debug)]
struct MaskRead {
    kind: MaskKind,
    offset: u64,
    len: usize,
    asked: usize,
    bytes: Vec<u8>,
    failed: bool,
}

impl Scan {
    pub(super) fn new(found: Super, options: &LoadOptions) -> Scan {
        let geometry = &found.geometry;
        let block_size = u64::from(options.block_size.clamp(512, 1 << 20));
        let pages = geometry.md_pages();
        let by_masks = found.block.clean
            && found.block.used_blobid_mask.len > 0
            && !found.torn
            && !options.force_recover;
        let mask_reads = match by_masks {
            true => MaskKind::IN_WRITE_ORDER.map(|kind| MaskRead::new(kind, geometry, block_size)).into(),
            false => Vec::new(),
        };
        let wanted = if by_masks { None } else { Some(all(pages)) };
        let todo = wanted.clone().unwrap_or_else(|| Bitmap::new(pages));
        Scan {
            records: Records::of(geometry.clone()),
            masks: None,
            mask_errors: Vec::new(),
            mask_reads,
            old_ids: None,
            wanted,
            todo,
            rounds: 0,
            cursor: 0,
            linked: Bitmap::new(pages),
            in_flight: 0,
            bytes_read: 0,
            max_read: options.max_read,
            forced: options.force_recover,
            small_blocks: block_size == 512,
            whole_pages: options.whole_pages,
            block_size,
            found,
        }
    }

    /// True if no usable masks list the roots, although they were expected to be usable.
    pub(super) fn unlisted(&self) -> bool {
        self.recovered() && !(self.in_order() && self.found.block.used_blobid_mask.len > 0 && self.forced)
    }

    /// True if the store was unloaded cleanly.
    pub(super) fn in_order(&self) -> bool {
        self.found.block.clean && !self.found.torn
    }

    /// True if every page was read rather than those in the masks.
    pub(super) fn recovered(&self) -> bool {
        self.masks.is_none()
    }

    pub(super) fn next_read(&mut self) -> Option<ByteRange> {
        if let Some(range) = self.mask_reads.iter_mut().find_map(|read| read.next(self.max_read)) {
            self.in_flight += 1;
            return Some(range);
        }
        if let Some(range) = self.next_pages() {
            return Some(range);
        }
        if self.in_flight > 0 || self.wanted.is_none() {
            return None;
        }
        self.follow_links();
        self.next_pages().or_else(|| self.next_of_old_ids())
    }

    fn next_of_old_ids(&mut self) -> Option<ByteRange> {
        let wanted = !self.in_order() && self.records.strange().next().is_some();
        if !wanted || self.found.geometry.mask(MaskKind::UsedBlobIds).len == 0 {
            return None;
        }
        let (geometry, block_size) = (&self.found.geometry, self.block_size);
        let new = || MaskRead::new(MaskKind::UsedBlobIds, geometry, block_size);
        let range = self.old_ids.get_or_insert_with(new).next(self.max_read)?;
        self.in_flight += 1;
        Some(range)
    }

    /// The roots at the last clean unload, if they were wanted and can be read.
    pub(super) fn old_ids(&self) -> Option<Bitmap> {
        let read = self.old_ids.as_ref().filter(|read| !read.failed)?;
        mask::parse(read.kind, &read.bytes, &self.found.geometry).ok()
    }

    pub(super) fn supply(&mut self, range: ByteRange, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(range.len)];
        self.in_flight = self.in_flight.saturating_sub(1);
        self.bytes_read += range.len as u64;
        if let Some(read) = self.old_ids.as_mut().filter(|read| read.covers(range)) {
            return read.take(range, bytes);
        }
        match self.mask_reads.iter_mut().find(|read| read.covers(range)) {
            Some(read) => {
                read.take(range, bytes);
                if self.in_flight == 0 && self.mask_reads.iter().all(|read| read.asked == read.len) {
                    self.judge_masks();
                }
            }
            None => self.take_pages(range, bytes),
        }
    }

    pub(super) fn progress(&self) -> (u64, u64) {
        let masks: u64 = self.mask_reads.iter().map(|read| read.len as u64).sum();
        let pages = self.wanted.as_ref().map_or(0, |wanted| u64::from(wanted.count()));
        let total = masks + pages * u64::from(self.found.geometry.md_page_size());
        (self.bytes_read, total.max(self.bytes_read))
    }

    pub(super) fn is_complete(&self) -> bool {
        self.in_flight == 0 && self.wanted.is_some() && self.linked.count() == 0
    }

    /// All three masks are read: uses them to choose pages, or reads all pages.
    fn judge_masks(&mut self) {
        let geometry = &self.found.geometry;
        let mut good = Vec::new();
        for read in std::mem::take(&mut self.mask_reads) {
            let parsed = match read.failed {
                true => Err(Problem::Unreadable.at(mask::place(read.kind, geometry))),
                false => mask::parse(read.kind, &read.bytes, geometry),
            };
            match parsed {
                Ok(bits) => good.push(bits),
                Err(error) => self.mask_errors.push(error),
            }
        }
        // In write order: pages, blob ids, clusters.
        let Ok([used_pages, used_blob_ids, used_clusters]) = <[Bitmap; 3]>::try_from(good) else {
            self.todo.fill();
            self.wanted = Some(self.todo.clone());
            return;
        };
        let mut wanted = used_pages.clone();
        used_blob_ids.iter().for_each(|page| {
            wanted.set(page);
        });
        let next_free = |&page: &u32| wanted.first_clear(page + 1);
        let free = std::iter::successors(wanted.first_clear(0), next_free).take(FIRST_FREE);
        let mut todo = wanted.clone();
        free.for_each(|page| {
            todo.set(page);
        });
        self.todo = todo;
        self.wanted = Some(wanted);
        self.masks = Some(DiskMasks { used_pages, used_clusters, used_blob_ids });
    }

    fn next_pages(&mut self) -> Option<ByteRange> {
        let first = self.todo.first_set(self.cursor)?;
        let page_size = u64::from(self.found.geometry.md_page_size());
        let most = (self.max_read as u64 / page_size).clamp(1, u64::from(u32::MAX)) as u32;
        let limit = first.saturating_add(most).min(self.found.geometry.md_pages());
        let mut end = first;
        let mut at = first;
        while at < limit && at <= end.saturating_add(BRIDGE) {
            if self.todo.clear(at) {
                end = at + 1;
            }
            at += 1;
        }
        self.cursor = end;
        self.in_flight += 1;
        let offset = self.found.geometry.page_offset(PageIdx(first));
        Some(ByteRange { offset, len: (u64::from(end - first) * page_size) as usize })
    }

    fn take_pages(&mut self, range: ByteRange, bytes: &[u8]) {
        let Some(wanted) = &mut self.wanted else { return };
        let geometry = &self.found.geometry;
        let page_size = u64::from(geometry.md_page_size());
        let Some(from_start) = range.offset.checked_sub(geometry.page_offset(PageIdx(0))) else { return };
        let first = from_start / page_size;
        for nth in 0..range.len as u64 / page_size {
            let Ok(index) = u32::try_from(first + nth) else { return };
            let slot = bytes.get((nth * page_size) as usize..).and_then(Page::view);
            if !wanted.get(index) {
                if !slot.is_some_and(|page| Records::is_unlisted_root(PageIdx(index), page)) {
                    continue;
                }
                wanted.set(index);
            }
            match slot {
                Some(page) => {
                    let whole = self.records.take(PageIdx(index), page);
                    // If every page is read anyway there are no links to follow.
                    if whole && self.masks.is_some() {
                        note_links(PageIdx(index), page, wanted, &mut self.linked);
                    }
                }
                None => self.records.take_unreadable(PageIdx(index)),
            }
        }
    }

    /// Adds the pages to which the ones read so far link and that the masks lack. A healthy store has none;
    /// if the links go on and on, everything is read instead.
    fn follow_links(&mut self) {
        let Some(wanted) = &mut self.wanted else { return };
        if self.linked.count() == 0 {
            return;
        }
        let linked = std::mem::replace(&mut self.linked, Bitmap::new(wanted.len()));
        let mut unread: Vec<u32> = linked.iter().filter(|&index| wanted.set(index)).collect();
        if unread.is_empty() {
            return;
        }
        self.rounds += 1;
        if self.rounds > MOST_ROUNDS {
            let before = std::mem::replace(wanted, all(wanted.len()));
            unread.extend((0..before.len()).filter(|&index| !before.get(index)));
        }
        unread.into_iter().for_each(|index| {
            self.todo.set(index);
        });
        self.cursor = 0;
    }
}

/// Notes the pages to which a page links and that are not wanted yet.
fn note_links(index: PageIdx, page: &Page, wanted: &Bitmap, linked: &mut Bitmap) {
    // An extent page has no links, and in a store with many blobs every second page is one.
    if is_lone_extent_page(page) {
        return;
    }
    let mut note = |index: u32| {
        if !wanted.get(index) {
            linked.set(index);
        }
    };
    if let Some(next) = page.next() {
        note(next.0);
    }
    for descriptor in page.descriptors(index, 0).flatten() {
        if let Descriptor::ExtentTable { entries, .. } = descriptor {
            entries.iter().filter(|&(page, _)| page != 0).for_each(|(page, _)| note(page));
        }
    }
}

fn all(pages: u32) -> Bitmap {
    let mut wanted = Bitmap::new(pages);
    wanted.fill();
    wanted
}

impl MaskRead {
    fn new(kind: MaskKind, geometry: &Geometry, block_size: u64) -> MaskRead {
        let (offset, _) = geometry.bytes_of(geometry.mask(kind));
        let bytes = (mask::HEADER_SIZE as u64) + u64::from(geometry.mask_bits(kind).div_ceil(8));
        // A mask lies inside the store, which ends at a block boundary, so rounding up stays on the device.
        let len = bytes.next_multiple_of(block_size) as usize;
        MaskRead { kind, offset, len, asked: 0, bytes: Vec::new(), failed: false }
    }

    fn next(&mut self, max_read: usize) -> Option<ByteRange> {
        let len = (self.len - self.asked).min(max_read.next_multiple_of(4096).max(4096));
        if len == 0 {
            return None;
        }
        let range = ByteRange { offset: self.offset + self.asked as u64, len };
        self.asked += len;
        Some(range)
    }

    fn covers(&self, range: ByteRange) -> bool {
        (self.offset..self.offset + self.len as u64).contains(&range.offset)
    }

    fn take(&mut self, range: ByteRange, bytes: &[u8]) {
        self.failed |= bytes.len() < range.len;
        let at = (range.offset - self.offset) as usize;
        let bytes = &bytes[..bytes.len().min(self.len - at)];
        self.bytes.resize(self.len, 0);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
