//! Structures that a crash can tear on devices whose atomic unit is below 4096 bytes: the super block, and
//! root and extent pages.

use super::records::{Record, Records};
use crate::crc;
use crate::geometry::Geometry;
use crate::ids::{BlobId, PageIdx};
use crate::page::{PAGE_SIZE, Page};
use crate::repair::{PageCopy, Repair, RepairReason, SectorSums};
use crate::super_block::{BsType, SIGNATURE, SuperBlock, VALUES, VERSION, is_noted, note_in};
use crate::{change::Change, geometry};
use std::collections::BTreeMap;

/// Super blob ids that are tried; it is set once in a store's life, and mostly to the first blob.
const MOST_SUPER_BLOBS: u32 = 4096;

/// The super block whose torn remains these bytes are, not clean; `None` if it cannot be determined.
///
/// All its values lie in the first sector and its CRC in the last one, so a torn write leaves the old values
/// with the new CRC or the other way round. Both belonged to a super block of this store, so the values are
/// valid if some single write by SPDK or this project explains the CRC: marking clean or dirty, setting the
/// super blob, growing to the device's size, or changing the type to or from a known one. For changes whose
/// old size or new type would have to be guessed, the Blobstore has noted both beside the CRC before.
pub(super) fn untear_super_block(bytes: &[u8], device_bytes: u64) -> Option<SuperBlock> {
    let page: &[u8; PAGE_SIZE] = bytes.first_chunk()?;
    let found = SuperBlock::parse_unchecked(page).ok()?;
    let plausible = page.starts_with(&SIGNATURE)
        && (1..=VERSION).contains(&found.version)
        && note_in(page).is_some()
        && geometry::Geometry::from_super(&found, device_bytes).is_ok();
    let explained = |block: &SuperBlock| {
        let mut whole = *page;
        whole[..VALUES].copy_from_slice(&block.to_bytes()[..VALUES]);
        crc::of_page(&whole) == crc::stored_in(page)
    };
    let dirty = SuperBlock { clean: false, ..found };
    let torn = || is_noted(page) || candidates(&dirty, device_bytes).any(|block| explained(&block));
    (plausible && torn()).then_some(dirty)
}

/// Possible contents of the other half of the torn write.
fn candidates(found: &SuperBlock, device_bytes: u64) -> impl Iterator<Item = SuperBlock> + '_ {
    let cluster_mask = |size: u64| {
        let clusters = u32::try_from(size / u64::from(found.cluster_size)).unwrap_or(u32::MAX);
        geometry::mask_pages(clusters, found.md_page_size.max(4096)) as u32
    };
    let sized = move |size: u64, mask_size: u64| {
        let mut block = found.clone();
        block.size = size;
        block.used_cluster_mask.len = cluster_mask(mask_size);
        block
    };
    let whole =
        device_bytes / u64::from(found.io_unit_size.max(512)) * u64::from(found.io_unit_size.max(512));
    let grown = [sized(0, device_bytes), sized(whole, whole), sized(device_bytes, device_bytes)];
    let ids = (0..found.metadata.len.min(MOST_SUPER_BLOBS)).map(|page| BlobId::from_page(PageIdx(page)));
    let super_blobs = ids.map(Some).chain([None]);
    let owned = found.clone();
    let set_super = super_blobs.map(move |super_blob| SuperBlock { super_blob, ..owned.clone() });
    let types = BsType::KNOWN.map(|bs_type| SuperBlock { bs_type, ..found.clone() });
    let dirty = [found.clone()].into_iter().chain(grown).chain(types).chain(set_super);
    dirty.flat_map(|block| [block.clone(), SuperBlock { clean: true, ..block }])
}

/// The treatment of copies that were found.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Torn pages restored, and useless copies cleared.
    pub(super) repairs: Vec<Repair>,
    /// The clearing of copies that do not explain the damage in their pages. They may help to recover lost
    /// data by hand.
    pub(super) useless: Vec<Repair>,
}

/// Restores torn root and extent pages from their copies, in the records and as repairs, and clears the
/// copies of whole pages.
pub(super) fn restore_pages(geometry: &Geometry, records: &mut Records) -> Copies {
    let mut found: BTreeMap<PageIdx, Vec<(PageIdx, PageCopy, Option<PageIdx>)>> = BTreeMap::new();
    for one in records.copies().into_iter().filter(|(_, copy, _)| copy.target.0 < geometry.md_pages()) {
        found.entry(one.1.target).or_default().push(one);
    }
    let mut copies = Copies::default();
    for (target, found) in found {
        let mut whole = true;
        if let Some(Record::Bad(torn)) = records.get(target) {
            // The page consists of old and new sectors; the most similar copy is that of the torn write.
            let explains =
                |(_, copy, _): &&(_, PageCopy, _)| torn.crcs.is_some() && copy.explains(&torn.sums);
            let likeness = |(index, copy, _): &&(PageIdx, PageCopy, _)| {
                (std::cmp::Reverse(torn.sums.likeness(&SectorSums::of(&copy.page))), *index)
            };
            match found.iter().filter(explains).min_by_key(likeness) {
                Some((at, copy, _)) => {
                    let reason = RepairReason::RestorePage { page: target, copy: *at };
                    let changes = vec![copy.page.write(target, geometry), Change::Flush];
                    copies.repairs.push(Repair { reason, changes });
                    records.restore(target, &copy.page);
                }
                None => whole = false,
            }
        }
        for (at, _, beside) in found {
            let reason = RepairReason::ForgetCopy { copy: at, page: target };
            let pages = beside.into_iter().chain([at]).map(|page| Page::clear(page, geometry));
            let repair = Repair { reason, changes: pages.collect() };
            match whole {
                true => {
                    records.forget(at);
                    copies.repairs.push(repair);
                }
                false => copies.useless.push(repair),
            }
        }
    }
    copies
}

/// Whether a repair clears a copy that lies in such a page.
pub(super) fn forgets_any(geometry: &Geometry, repair: &Repair, is: impl Fn(PageIdx) -> bool) -> bool {
    let first = geometry.page_offset(PageIdx(0));
    let page_of = |offset: u64| u32::try_from((offset - first) / u64::from(geometry.md_page_size()));
    let mut cleared = repair.changes.iter().filter_map(|change| match change {
        Change::Zero { offset, .. } => page_of(*offset).ok().map(PageIdx),
        _ => None,
    });
    matches!(repair.reason, RepairReason::ForgetCopy { .. }) && cleared.any(is)
}

/// Clears pages that look like the beginning of a root and are none: overwritten and torn again, they would
/// look like a damaged one.
pub(super) fn leftovers(
    geometry: &Geometry,
    records: &Records,
    used: impl Fn(PageIdx) -> bool,
) -> Vec<Repair> {
    let left = records.bad().filter(|(page, bad)| !used(*page) && bad.says_root && bad.last_sector_empty);
    let clear = |page| Repair {
        reason: RepairReason::ClearTorn { page },
        changes: vec![Page::clear(page, geometry)],
    };
    left.map(|(page, _)| clear(page)).collect()
}
