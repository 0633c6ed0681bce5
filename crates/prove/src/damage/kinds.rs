//! Damage: changes to the bytes of a store as a bad disk, cable, program or restore makes them.

use spindle_engine::sim::{Image, Rng};
use spindle_format::page::DESCRIPTORS_OFFSET;
use spindle_format::{MaskKind, PAGE_SIZE, PageIdx, crc};

use super::source::Base;

/// Bytes that a disk writes atomically.
const SECTOR: u64 = 512;

/// The most sectors that are rolled back together.
const LONGEST_ROLLBACK: u64 = 24;

/// One piece of damage.
#[derive(Clone, Debug)]
pub struct Damage {
    /// The kind of damage.
    pub kind: &'static str,
    /// True if the damaged pages then got a correct checksum.
    pub sealed: bool,
    /// The damage in words.
    pub what: String,
    /// Offsets and the bytes that replace others there.
    patches: Vec<(u64, Vec<u8>)>,
}

impl Damage {
    /// Damages an image.
    pub fn apply(&self, image: &mut Image) {
        self.patches.iter().for_each(|(offset, bytes)| image.write(*offset, bytes));
    }
}

/// Chooses damage for the store in `image`. Returns `None` if it would change nothing.
pub fn choose(base: &Base, image: &Image, rng: &mut Rng) -> Option<Damage> {
    let seal = rng.below(2) == 0;
    let (kind, can_seal, patches) = match rng.below(18) {
        0 | 1 => ("bit", true, edit(base, image, rng, 1)),
        2 => ("bits", true, edit(base, image, rng, 6)),
        3 => ("bytes", true, bytes(base, image, rng)),
        4 => ("random page", true, random_page(base, image, rng)),
        5 | 6 => ("zeroed page", false, vec![(place(base, image, rng), vec![0; PAGE_SIZE])]),
        7 => ("zeroed sectors", true, zeroed_sectors(base, image, rng)),
        8 => ("page of another place", false, other_place(base, image, rng, false)),
        9 => ("swapped pages", false, other_place(base, image, rng, true)),
        10 | 11 => ("stale page", false, stale_page(base, image, rng)?),
        12 | 13 => ("sectors rolled back", false, rolled_back(base, image, rng)?),
        14 => ("lost write", false, vec![base.lost_write(rng)?]),
        15 => ("stale masks", false, stale_masks(base, image, rng)?),
        _ => ("field", true, field(base, image, rng)),
    };
    let mut patches = patches;
    let sealed = can_seal && seal;
    if sealed {
        seal_pages(base, image, &mut patches);
    }
    let changes = |(offset, bytes): &(u64, Vec<u8>)| {
        let mut now = vec![0; bytes.len()];
        image.read(*offset, &mut now);
        now != *bytes
    };
    patches.retain(changes);
    let places: Vec<String> =
        patches.iter().map(|(offset, bytes)| told(base, image, *offset, bytes)).collect();
    let with = if sealed { ", sealed" } else { "" };
    let what = format!("{kind}{with}: {}", places.join("; "));
    (!patches.is_empty()).then_some(Damage { kind, sealed, what, patches })
}

/// Describes where bytes lie and what they change.
fn told(base: &Base, image: &Image, offset: u64, bytes: &[u8]) -> String {
    let mut before = vec![0; bytes.len()];
    image.read(offset, &mut before);
    let first = before.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(0);
    let last = before.iter().zip(bytes).rposition(|(a, b)| a != b).unwrap_or(0);
    let geometry = &base.store.geometry;
    let start = geometry.page_offset(PageIdx(0));
    let at = offset + first as u64;
    let place = match at.checked_sub(start) {
        Some(inside) if at < base.metadata_end() => {
            let page = inside / u64::from(geometry.md_page_size());
            format!("metadata page {page} byte {}", inside % u64::from(geometry.md_page_size()))
        }
        _ => format!("byte {at}"),
    };
    let (was, is) = (&before[first..=last], &bytes[first..=last]);
    match was.len() {
        ..=16 => format!("{place} (image byte {at}) from {was:02x?} to {is:02x?}"),
        length => format!("{length} bytes from {place} on (image byte {at})"),
    }
}

fn page_of(image: &Image, offset: u64) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    image.read(offset, &mut page);
    page
}

/// Returns the offsets of the metadata pages that are not zero.
fn used(base: &Base, image: &Image) -> Vec<u64> {
    let geometry = &base.store.geometry;
    let all = (0..geometry.md_pages()).map(|page| geometry.page_offset(PageIdx(page)));
    all.filter(|offset| page_of(image, *offset).iter().any(|byte| *byte != 0)).collect()
}

/// Chooses the offset of a page to damage, mostly one of a blob.
fn place(base: &Base, image: &Image, rng: &mut Rng) -> u64 {
    let geometry = &base.store.geometry;
    let used = used(base, image);
    match rng.below(20) {
        0 => 0,
        1 => geometry.page_offset(PageIdx(rng.below(geometry.md_pages() as usize) as u32)),
        2 | 3 => {
            let kind = MaskKind::IN_WRITE_ORDER[rng.below(MaskKind::IN_WRITE_ORDER.len())];
            geometry.bytes_of(geometry.mask(kind)).0
        }
        _ if used.is_empty() => geometry.page_offset(PageIdx(0)),
        _ => used[rng.below(used.len())],
    }
}

/// Chooses a byte of a page, mostly one with a meaning: not in the zeroes after the descriptors.
fn byte_of(page: &[u8; PAGE_SIZE], rng: &mut Rng) -> usize {
    let end = page[..PAGE_SIZE - 8].iter().rposition(|byte| *byte != 0).map_or(64, |last| last + 1);
    match rng.below(16) {
        0 => PAGE_SIZE - 8 + rng.below(8),
        1 => rng.below(PAGE_SIZE),
        2 | 3 => rng.below(DESCRIPTORS_OFFSET),
        _ => rng.below((end + 8).min(PAGE_SIZE)),
    }
}

fn edit(base: &Base, image: &Image, rng: &mut Rng, bits: usize) -> Vec<(u64, Vec<u8>)> {
    let offset = place(base, image, rng);
    let mut page = page_of(image, offset);
    for _ in 0..1 + rng.below(bits) {
        let at = byte_of(&page, rng);
        page[at] ^= 1 << rng.below(8);
    }
    vec![(offset, page.to_vec())]
}

fn bytes(base: &Base, image: &Image, rng: &mut Rng) -> Vec<(u64, Vec<u8>)> {
    let offset = place(base, image, rng);
    let mut page = page_of(image, offset);
    let at = byte_of(&page, rng);
    let end = (at + 1 + rng.below(64)).min(PAGE_SIZE);
    page[at..end].iter_mut().for_each(|byte| *byte = rng.next_u64() as u8);
    vec![(offset, page.to_vec())]
}

fn random_page(base: &Base, image: &Image, rng: &mut Rng) -> Vec<(u64, Vec<u8>)> {
    let offset = place(base, image, rng);
    vec![(offset, (0..PAGE_SIZE).map(|_| rng.next_u64() as u8).collect())]
}

fn zeroed_sectors(base: &Base, image: &Image, rng: &mut Rng) -> Vec<(u64, Vec<u8>)> {
    let offset = place(base, image, rng);
    let mut page = page_of(image, offset);
    let sectors = PAGE_SIZE / SECTOR as usize;
    let first = rng.below(sectors);
    let end = (first + 1 + rng.below(4)).min(sectors);
    page[first * SECTOR as usize..end * SECTOR as usize].fill(0);
    vec![(offset, page.to_vec())]
}

fn other_place(base: &Base, image: &Image, rng: &mut Rng, swap: bool) -> Vec<(u64, Vec<u8>)> {
    let used = used(base, image);
    if used.is_empty() {
        return Vec::new();
    }
    let from = used[rng.below(used.len())];
    let to = match swap {
        true => used[rng.below(used.len())],
        false => place(base, image, rng),
    };
    let mut patches = vec![(to, page_of(image, from).to_vec())];
    if swap {
        patches.push((from, page_of(image, to).to_vec()));
    }
    patches
}

fn stale_page(base: &Base, image: &Image, rng: &mut Rng) -> Option<Vec<(u64, Vec<u8>)>> {
    for _ in 0..20 {
        let (old, _) = base.earlier.get(rng.below(base.earlier.len().max(1)))?;
        let offset = place(base, image, rng);
        let stale = page_of(old, offset);
        if stale != page_of(image, offset) {
            return Some(vec![(offset, stale.to_vec())]);
        }
    }
    None
}

fn rolled_back(base: &Base, image: &Image, rng: &mut Rng) -> Option<Vec<(u64, Vec<u8>)>> {
    for _ in 0..20 {
        let (old, _) = base.earlier.get(rng.below(base.earlier.len().max(1)))?;
        let first = place(base, image, rng) + rng.below(8) as u64 * SECTOR;
        let most = (base.metadata_end().saturating_sub(first) / SECTOR).min(LONGEST_ROLLBACK);
        let length = (1 + rng.below(most.max(1) as usize)) * SECTOR as usize;
        let mut stale = vec![0; length];
        old.read(first, &mut stale);
        let mut now = vec![0; length];
        image.read(first, &mut now);
        if stale != now {
            return Some(vec![(first, stale)]);
        }
    }
    None
}

/// Some of the masks, whole, as they were earlier.
fn stale_masks(base: &Base, image: &Image, rng: &mut Rng) -> Option<Vec<(u64, Vec<u8>)>> {
    let geometry = &base.store.geometry;
    for _ in 0..20 {
        let (old, _) = base.earlier.get(rng.below(base.earlier.len().max(1)))?;
        let which = 1 + rng.below(7);
        let kinds = MaskKind::IN_WRITE_ORDER.into_iter().enumerate().filter(|(nth, _)| which >> nth & 1 == 1);
        let stale: Vec<(u64, Vec<u8>)> = kinds
            .map(|(_, kind)| {
                let (offset, len) = geometry.bytes_of(geometry.mask(kind));
                let mut bytes = vec![0; len as usize];
                old.read(offset, &mut bytes);
                (offset, bytes)
            })
            .collect();
        let differs = |(offset, bytes): &(u64, Vec<u8>)| {
            let mut now = vec![0; bytes.len()];
            image.read(*offset, &mut now);
            now != *bytes
        };
        if stale.iter().any(differs) {
            return Some(stale);
        }
    }
    None
}

/// Sets a meaningful number to another meaningful value.
fn field(base: &Base, image: &Image, rng: &mut Rng) -> Vec<(u64, Vec<u8>)> {
    let offset = place(base, image, rng);
    let mut page = page_of(image, offset);
    let at = byte_of(&page, rng);
    let geometry = &base.store.geometry;
    let width = [1, 4, 4, 8][rng.below(4)];
    let at = (at / width * width).min(PAGE_SIZE - width);
    let mut word = [0; 8];
    word[..width].copy_from_slice(&page[at..at + width]);
    let now = u64::from_le_bytes(word);
    let blobs: Vec<u64> = base.store.blobs.keys().map(|id| id.raw()).collect();
    let other = |rng: &mut Rng| blobs.get(rng.below(blobs.len().max(1))).copied().unwrap_or(1 << 32);
    let value = match rng.below(10) {
        0 => 0,
        1 => 1,
        2 => now.wrapping_add(1),
        3 => now.wrapping_sub(1),
        4 => u64::MAX,
        5 => rng.below(geometry.md_pages() as usize) as u64,
        6 => rng.below(geometry.total_clusters() as usize) as u64,
        7 => u64::from(geometry.total_clusters()),
        8 => other(rng),
        _ => other(rng) & 0xffff_ffff,
    };
    page[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    vec![(offset, page.to_vec())]
}

/// Gives each damaged page that carries a checksum the correct one.
fn seal_pages(base: &Base, image: &Image, patches: &mut [(u64, Vec<u8>)]) {
    let geometry = &base.store.geometry;
    let start = geometry.page_offset(PageIdx(0));
    for (offset, bytes) in patches {
        let inside = offset.checked_sub(start).filter(|_| *offset < base.metadata_end());
        let is_page = inside.is_some_and(|inside| inside.is_multiple_of(geometry.md_page_size().into()));
        if !is_page && *offset != 0 {
            continue;
        }
        if let Some(page) = bytes.first_chunk_mut::<PAGE_SIZE>() {
            crc::seal(page);
        } else {
            debug_assert!(image.size() > *offset, "patches of pages are whole");
        }
    }
}
