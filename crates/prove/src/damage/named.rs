//! What cannot be read is named.

use std::collections::BTreeSet;

use spindle_engine::sim::Image;
use spindle_format::check::{Finding, Severity};
use spindle_format::descriptor::kind;
use spindle_format::page::Page;
use spindle_format::repair::RepairReason;
use spindle_format::{BlobId, PAGE_SIZE, PageIdx};

use super::contents::{Allowed, lost, readable};
use super::source::Base;
use super::{Broken, State};

/// The high word of the id that a copy of a page carries.
const COPY: u64 = 0x434f_5049;

/// Bytes that a device writes at once, whatever it is.
const SECTOR: usize = 512;

/// Whether the next writing load puts this right by itself.
pub fn is_pending(finding: &Finding) -> bool {
    finding.severity() == Severity::Pending
}

/// Whether a finding says something of a blob, by its id or by the page of its root.
fn names(finding: &Finding, id: BlobId) -> bool {
    let text = finding.to_string();
    let told = |word: &str, ends: fn(char) -> bool| {
        text.match_indices(word).any(|(at, _)| !text[at + word.len()..].starts_with(ends))
    };
    let by_id = told(&id.to_string(), |next| next.is_ascii_hexdigit());
    let by_page =
        || id.root_page().is_some_and(|root| told(&format!("page {root}"), |next| next.is_ascii_digit()));
    by_id || by_page()
}

/// Whether some finding, other than one of what a load puts right, names a blob.
pub fn is_named(findings: &[Finding], id: BlobId) -> bool {
    findings.iter().any(|finding| !is_pending(finding) && names(finding, id))
}

/// Every id that damage is found of.
pub fn damaged(state: &State) -> BTreeSet<BlobId> {
    let found = state.examined.findings.iter().filter_map(|finding| match finding {
        Finding::DamagedBlob { blob, .. } | Finding::OrphanedClone { blob, .. } => Some(*blob),
        Finding::ParentCircle { blob } | Finding::UnlistedBlob { blob } => Some(*blob),
        Finding::HalfDone(half) => Some(half.snapshot),
        _ => None,
    });
    found.collect()
}

/// Whether the damage that was done lies in the page of a blob's root.
pub fn is_hit(base: &Base, image: &Image, id: BlobId) -> bool {
    let root = id.root_page().filter(|root| root.0 < base.store.geometry.md_pages());
    let offset = root.map(|root| base.store.geometry.page_offset(root));
    offset.is_some_and(|offset| !image.is_same(&base.image, offset, PAGE_SIZE as u64))
}

/// Whether damage of a blob leaves no trace in a store that is not left in order: the page of its root is one that
/// nothing has to name there.
pub fn is_traceless(base: &Base, image: &Image, state: &State, id: BlobId) -> bool {
    let Some(root) = id.root_page().filter(|root| root.0 < base.store.geometry.md_pages()) else {
        return true;
    };
    let mut page = [0; PAGE_SIZE];
    image.read(state.examined.store.geometry.page_offset(root), &mut page);
    !state.examined.store.super_block.clean && may_be_left(base, root, &page)
}

/// Blobs that only the second reading of a check sees, as if there were no masks: no load does.
pub fn hidden(state: &State) -> BTreeSet<BlobId> {
    let store = &state.examined.store;
    let found = state.examined.findings.iter().filter_map(|finding| match finding {
        Finding::UnlistedBlob { blob } => Some(*blob).filter(|blob| !store.unlisted.contains(blob)),
        _ => None,
    });
    found.collect()
}

/// Blobs of the undamaged store that cannot be read as before are named, where their pages tell.
///
/// # Errors
/// One is not named.
pub fn judge(base: &Base, image: &Image, state: &State) -> Result<(), Broken> {
    let (findings, store) = (&state.examined.findings, &state.examined.store);
    // Also SPDK leaves such a store in order.
    let was_so = |finding: &Finding| base.findings.contains(finding);
    // A page of another blob that is longer is found with the clusters that both name.
    let shared = findings.iter().any(|finding| matches!(finding, Finding::SharedCluster { .. }));
    let half_done = findings.iter().find(|finding| is_half_done(finding) && !was_so(finding) && !shared);
    if let Some(wrong) = half_done.filter(|_| store.super_block.clean) {
        return Err(Broken::new("in a store left in order nothing is half done", wrong.to_string()));
    }
    let masks = (0, base.store.geometry.page_offset(PageIdx(0)));
    let in_order = store.super_block.clean && image.is_same(&base.image, masks.0, masks.1);
    if store.super_block.clean && !in_order {
        // Masks that are damaged too may hide a blob whose root is.
        return Ok(());
    }
    let whole = readable(&base.ground, &base.image, &base.store);
    for (id, blob) in &base.store.blobs {
        let restored = |page| findings.iter().any(|finding| is_restored(finding, page));
        // Of a root that was hit only that page tells, and one that is right in itself counts, however old it is.
        let pages = blob.pages().take(if is_hit(base, image, *id) { 1 } else { usize::MAX });
        let mut pages = pages.filter(|page| !restored(*page));
        let Some(why) = pages.find_map(|page| broken_page(base, image, page, in_order)) else { continue };
        let Some(what) = lost(*id, &whole[id], state.readable.get(id), &Allowed::default()) else { continue };
        if !is_named(findings, *id) {
            return Err(Broken::new("what cannot be read is named", format!("{what}; {why}")));
        }
    }
    Ok(())
}

/// What only a crash leaves.
fn is_half_done(finding: &Finding) -> bool {
    matches!(finding, Finding::Pending(RepairReason::FinishResize { .. } | RepairReason::RestorePage { .. }))
}

/// Whether a page is put back as a write that was cut off was to leave it.
fn is_restored(finding: &Finding, index: PageIdx) -> bool {
    matches!(finding, Finding::Pending(RepairReason::RestorePage { page, .. }) if *page == index)
}

/// Why a page of a blob cannot be what a store or a crash has left there, if that can be told.
fn broken_page(base: &Base, image: &Image, index: PageIdx, in_order: bool) -> Option<String> {
    let offset = base.store.geometry.page_offset(index);
    if image.is_same(&base.image, offset, PAGE_SIZE as u64) {
        return None;
    }
    let mut bytes = [0; PAGE_SIZE];
    image.read(offset, &mut bytes);
    let whole = Page::view(&bytes)?.crc_ok();
    let is_empty = bytes.iter().all(|byte| *byte == 0);
    match in_order {
        true if is_empty => Some(format!("metadata page {index} is empty")),
        _ if whole || is_empty || !in_order && may_be_left(base, index, &bytes) => None,
        _ => Some(format!("the checksum of metadata page {index} is wrong")),
    }
}

/// Whether a crash may have left this page in a store in use: empty, being made, rewritten or cleared, or what
/// nothing names any more.
fn may_be_left(base: &Base, index: PageIdx, bytes: &[u8; PAGE_SIZE]) -> bool {
    let Some(page) = Page::view(bytes) else { return false };
    let is_zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
    let nothing = is_zero(0..8) && is_zero(PAGE_SIZE - 8..PAGE_SIZE);
    let half = is_zero(0..SECTOR) || is_zero(PAGE_SIZE - SECTOR..PAGE_SIZE);
    let copy = page.id().raw() < 1 << 32 || page.id().raw() >> 32 == COPY;
    let others = page.id().root_page().is_some_and(|root| root != index)
        && (page.sequence() > 0 || page.descriptor_bytes()[0] == kind::EXTENT_PAGE);
    nothing || half || copy || others || may_be_torn(base, index, bytes)
}

/// Whether each of its sectors is one that was there, or empty.
fn may_be_torn(base: &Base, index: PageIdx, page: &[u8; PAGE_SIZE]) -> bool {
    let mut before = [0; PAGE_SIZE];
    base.image.read(base.store.geometry.page_offset(index), &mut before);
    let ages = [before, [0; PAGE_SIZE]];
    let mut sectors = page.chunks(SECTOR).enumerate();
    sectors.all(|(at, sector)| ages.iter().any(|age| age[at * SECTOR..][..SECTOR] == *sector))
}
