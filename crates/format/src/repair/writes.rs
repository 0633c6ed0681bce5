//! The writes that change metadata so that a crash between any two of them leaves the old or the new.

use super::PageCopy;
use crate::bitmap::Bitmap;
use crate::chain;
use crate::change::Change;
use crate::geometry::Geometry;
use crate::ids::{BlobId, PageIdx};
use crate::metadata::BlobMetadata;
use crate::page::Page;

/// Rewrites a page in place behind a copy, so that a torn write can be restored. `None` if no metadata page
/// is free for the copy.
pub(crate) fn rewrite_in_place(
    geometry: &Geometry,
    at: PageIdx,
    page: &Page,
    used_pages: &Bitmap,
) -> Option<Vec<Change>> {
    let spare = PageIdx(used_pages.first_clear(1)?);
    Some(vec![
        PageCopy::new(at, page.clone()).to_page().write(spare, geometry),
        Change::Flush,
        page.write(at, geometry),
        Change::Flush,
        Page::clear(spare, geometry),
    ])
}

/// Rewrites a blob's chain: new pages for all but the root, then the root in place, then the old pages go.
/// Returns the writes and where the chain lies afterwards; `used_pages` is changed accordingly. `None`, with
/// nothing changed, if too few metadata pages are free.
pub(crate) fn rewrite_chain(
    geometry: &Geometry,
    id: BlobId,
    metadata: &BlobMetadata,
    old: &[PageIdx],
    used_pages: &mut Bitmap,
) -> Option<(Vec<Change>, Vec<PageIdx>)> {
    let (&root, old_rest) = old.split_first()?;
    let mut pages = chain::to_pages(id, metadata);
    let mut at = vec![root];
    while at.len() < pages.len() {
        let Some(page) = used_pages.first_clear(1) else { break };
        used_pages.set(page);
        at.push(PageIdx(page));
    }
    let enough = at.len() == pages.len();
    if enough {
        chain::link(&mut pages, &at);
    }
    let root_writes = enough.then(|| rewrite_in_place(geometry, root, &pages[0], used_pages)).flatten();
    let Some(root_writes) = root_writes else {
        at[1..].iter().for_each(|page| {
            used_pages.clear(page.0);
        });
        return None;
    };
    let rest = pages.iter().zip(&at).skip(1);
    let mut changes: Vec<Change> = rest.map(|(page, &at)| page.write(at, geometry)).collect();
    changes.extend(root_writes);
    changes.extend(old_rest.iter().map(|&page| Page::clear(page, geometry)));
    old_rest.iter().for_each(|page| {
        used_pages.clear(page.0);
    });
    Some((changes, at))
}
