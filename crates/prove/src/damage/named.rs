//! Verifies that a finding names everything that cannot be read.

use std::collections::BTreeSet;

use spindle_engine::sim::Image;
use spindle_format::check::{Finding, Severity};
use spindle_format::descriptor::kind;
use spindle_format::page::Page;
use spindle_format::repair::RepairReason;
use spindle_format::{BlobId, DamagedBlob, PAGE_SIZE, PageIdx};

use super::broken::Broken;
use super::contents::{Allowed, lost, readable};
use super::source::Base;
use super::state::State;

/// The high word of the id that a copy of a page carries.
const COPY: u64 = 0x434f_5049;

/// Bytes that any device writes atomically.
const SECTOR: usize = 512;

/// True if the next load for writing repairs this.
pub fn is_pending(finding: &Finding) -> bool {
    finding.severity() == Severity::Pending
}

/// True if a finding names a blob, by its id or by its root page.
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

/// True if a finding names a blob, except findings that a load repairs.
pub fn is_named(findings: &[Finding], id: BlobId) -> bool {
    findings.iter().any(|finding| !is_pending(finding) && names(finding, id))
}

/// Returns the ids of all damaged blobs.
pub fn damaged(state: &State) -> BTreeSet<BlobId> {
    let found = state.examined.findings.iter().filter_map(|finding| match finding {
        Finding::DamagedBlob { blob, .. } | Finding::OrphanedClone { blob, .. } => Some(*blob),
        Finding::ParentCircle { blob } => Some(*blob),
        Finding::UnlistedBlob { blob } => Some(*blob).filter(|blob| !is_unmade(state, *blob)),
        Finding::HalfDone(half) => Some(half.snapshot),
        _ => None,
    });
    found.collect()
}

/// True if a blob that masks older than the metadata lack was never finished: reading without them takes it away.
fn is_unmade(state: &State, id: BlobId) -> bool {
    let without_masks = state.examined.without_masks.as_ref();
    without_masks
        .is_some_and(|all| all.blob(id).is_none() && !all.damaged.iter().any(|damaged| damaged.id == id))
}

/// True if the damage lies in the blob's root page.
pub fn is_hit(base: &Base, image: &Image, id: BlobId) -> bool {
    let root = id.root_page().filter(|root| root.0 < base.store.geometry.md_pages());
    let offset = root.map(|root| base.store.geometry.page_offset(root));
    offset.is_some_and(|offset| !image.is_same(&base.image, offset, PAGE_SIZE as u64))
}

/// True if damage of a blob leaves no trace in a store that was not unloaded: nothing has to name its root
/// page there. That page may be another blob's whose id alone is damaged, which SPDK does not look at in an extent
/// page: then only a damaged mask of blob ids said that it is a root.
pub fn is_traceless(base: &Base, image: &Image, state: &State, id: BlobId) -> bool {
    let Some(root) = id.root_page().filter(|root| root.0 < base.store.geometry.md_pages()) else {
        return true;
    };
    let mut page = [0; PAGE_SIZE];
    image.read(state.examined.store.geometry.page_offset(root), &mut page);
    let store = &state.examined.store;
    let others = store.blobs.values().any(|blob| blob.pages().any(|page| page == root));
    !store.super_block.clean && (others || may_be_left(base, root, &page))
}

/// Returns blobs that only the second reading of a check finds, which ignores the masks. No load finds them.
pub fn hidden(state: &State) -> BTreeSet<BlobId> {
    let store = &state.examined.store;
    let found = state.examined.findings.iter().filter_map(|finding| match finding {
        Finding::UnlistedBlob { blob } => Some(*blob).filter(|blob| !store.unlisted.contains(blob)),
        _ => None,
    });
    found.collect()
}

/// Verifies that a finding names each blob of the undamaged store that cannot be read as before, if its pages
/// show it.
///
/// # Errors
/// A blob is not named.
pub fn judge(base: &Base, image: &Image, state: &State) -> Result<(), Broken> {
    let (findings, store) = (&state.examined.findings, &state.examined.store);
    // SPDK leaves such a store after an unload too.
    let was_so = |finding: &Finding| base.findings.contains(finding);
    // A longer page of another blob shows up as clusters that both blobs name.
    let shared = findings.iter().any(|finding| matches!(finding, Finding::SharedCluster { .. }));
    let half_done = findings.iter().find(|finding| is_half_done(finding) && !was_so(finding) && !shared);
    if let Some(wrong) = half_done.filter(|_| store.super_block.clean) {
        return Err(Broken::new("in a store left in order nothing is half done", wrong.to_string()));
    }
    let masks = (0, base.store.geometry.page_offset(PageIdx(0)));
    let in_order = store.super_block.clean && image.is_same(&base.image, masks.0, masks.1);
    if store.super_block.clean && !in_order {
        // Damaged masks may hide a blob with a damaged root.
        return Ok(());
    }
    if store.geometry.metadata() != base.store.geometry.metadata() {
        // A sealed super block says that the metadata pages lie elsewhere, or that there are fewer.
        return Ok(());
    }
    let whole = readable(&base.ground, &base.image, &base.store);
    for (id, blob) in &base.store.blobs {
        let restored = |page| findings.iter().any(|finding| is_restored(finding, page));
        // If the root was hit, only that page counts; a valid page counts as whole, however old it is.
        let pages = blob.pages().take(if is_hit(base, image, *id) { 1 } else { usize::MAX });
        let mut pages = pages.filter(|page| !restored(*page));
        let Some(why) = pages.find_map(|page| broken_page(base, image, page, in_order)) else { continue };
        let Some(what) = lost(*id, &whole[id], state.readable.get(id), &Allowed::default()) else { continue };
        // A damaged blob whose sealed page names this root as its own: nothing says that it is a root.
        let claims = |other: &&DamagedBlob| {
            other.id != *id && id.root_page().is_some_and(|root| other.named_pages.contains(&root))
        };
        if !is_named(findings, *id) && !store.damaged.iter().any(|other| claims(&other)) {
            return Err(Broken::new("what cannot be read is named", format!("{what}; {why}")));
        }
    }
    Ok(())
}

/// True for findings that only a crash leaves.
fn is_half_done(finding: &Finding) -> bool {
    matches!(finding, Finding::Pending(RepairReason::FinishResize { .. } | RepairReason::RestorePage { .. }))
}

/// True if the page is restored to the contents of an interrupted write.
fn is_restored(finding: &Finding, index: PageIdx) -> bool {
    matches!(finding, Finding::Pending(RepairReason::RestorePage { page, .. }) if *page == index)
}

/// Returns why neither the store nor a crash can have left this page, if that can be decided.
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

/// True if a crash may have left this page in a store in use: empty, being made, rewritten or cleared, or no
/// longer in use.
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

/// True if each of its sectors is unchanged or empty.
fn may_be_torn(base: &Base, index: PageIdx, page: &[u8; PAGE_SIZE]) -> bool {
    let mut before = [0; PAGE_SIZE];
    base.image.read(base.store.geometry.page_offset(index), &mut before);
    let ages = [before, [0; PAGE_SIZE]];
    let mut sectors = page.chunks(SECTOR).enumerate();
    sectors.all(|(at, sector)| ages.iter().any(|age| age[at * SECTOR..][..SECTOR] == *sector))
}
