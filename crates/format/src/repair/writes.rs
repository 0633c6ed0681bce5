//! Writes that change metadata so that a crash between any two of them leaves the old or the new.

use super::{PageCopy, SectorSums};
use crate::bitmap::Bitmap;
use crate::chain;
use crate::change::Change;
use crate::geometry::Geometry;
use crate::ids::{BlobId, PageIdx};
use crate::metadata::BlobMetadata;
use crate::page::Page;

/// The metadata pages of a store.
pub(crate) struct Pages<'a> {
    /// Those in use.
    pub(crate) used: &'a mut Bitmap,
    /// True if the device tears none.
    pub(crate) whole: bool,
}

/// Rewrites a page in place, with a copy, so that a torn write can be restored. If no metadata page is free for
/// the copy, without one if no write is torn, and else `None`.
pub(crate) fn rewrite_in_place(
    geometry: &Geometry,
    at: PageIdx,
    page: &Page,
    before: SectorSums,
    pages: &Pages<'_>,
) -> Option<Vec<Change>> {
    let with_copy = rewrite_with_copy(geometry, at, page, before, pages.used);
    let alone = || vec![Change::Flush, page.write(at, geometry), Change::Flush];
    with_copy.or_else(|| pages.whole.then(alone))
}

fn rewrite_with_copy(
    geometry: &Geometry,
    at: PageIdx,
    page: &Page,
    before: SectorSums,
    used_pages: &Bitmap,
) -> Option<Vec<Change>> {
    let spare = PageIdx(used_pages.first_clear(1)?);
    let pages = PageCopy::new(at, page.clone(), before).to_pages();
    let mut changes = vec![pages.copy.write(spare, geometry)];
    let mut cleared = vec![Page::clear(spare, geometry)];
    if let Some(sums) = pages.sums_for(spare) {
        let beside = PageIdx(used_pages.first_clear(spare.0 + 1)?);
        changes.push(sums.write(beside, geometry));
        cleared.push(Page::clear(beside, geometry));
    }
    changes.extend([Change::Flush, page.write(at, geometry), Change::Flush]);
    changes.extend(cleared);
    Some(changes)
}

/// A rewritten chain.
pub(crate) struct Rewritten {
    /// The writes.
    pub(crate) changes: Vec<Change>,
    /// Where the chain lies afterwards, root first.
    pub(crate) at: Vec<PageIdx>,
    /// The new contents of its root.
    pub(crate) root: Page,
}

/// Rewrites a blob's chain: new pages for all but the root, then the root in place, then the old pages are
/// freed. `before` is the present contents of the root; `free` is updated. `None`, with nothing
/// changed, if too few metadata pages are free.
pub(crate) fn rewrite_chain(
    geometry: &Geometry,
    id: BlobId,
    metadata: &BlobMetadata,
    old: &[PageIdx],
    before: SectorSums,
    free: &mut Pages<'_>,
) -> Option<Rewritten> {
    let (&root, old_rest) = old.split_first()?;
    let mut pages = chain::to_pages(id, metadata);
    let mut at = vec![root];
    while at.len() < pages.len() {
        let Some(page) = free.used.first_clear(1) else { break };
        free.used.set(page);
        at.push(PageIdx(page));
    }
    let enough = at.len() == pages.len();
    if enough {
        chain::link(&mut pages, &at);
    }
    let root_writes = enough.then(|| rewrite_in_place(geometry, root, &pages[0], before, free)).flatten();
    let Some(root_writes) = root_writes else {
        at[1..].iter().for_each(|page| {
            free.used.clear(page.0);
        });
        return None;
    };
    let rest = pages.iter().zip(&at).skip(1);
    let mut changes: Vec<Change> = rest.map(|(page, &at)| page.write(at, geometry)).collect();
    changes.extend(root_writes);
    changes.extend(old_rest.iter().map(|&page| Page::clear(page, geometry)));
    old_rest.iter().for_each(|page| {
        free.used.clear(page.0);
    });
    Some(Rewritten { changes, at, root: pages.swap_remove(0) })
}
