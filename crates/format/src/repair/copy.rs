//! Copies of root and extent pages, for devices that can tear a 4096-byte write.
//!
//! Before such a page is rewritten in place, what it will hold goes to a free metadata page and is flushed.
//! If the write is then torn, load restores it. A copy is the page with another id: `COPY` in the high word
//! and the index of the page in the low one, the low word of the real id in the reserved field. SPDK's
//! recovery takes a page with sequence number 0 whose id does not match its index for a free one.
//!
//! Whoever writes copies has to clear one, durably, before the page it is a copy of is deleted, and before
//! the next copy of the same page is flushed: a copy is believed whenever its page fails its CRC.

use crate::ids::{BlobId, PageIdx};
use crate::page::Page;

const TAG: u64 = 0x434F_5059;

/// A copy of a root or extent page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageCopy {
    /// The page it is a copy of.
    pub target: PageIdx,
    /// What that page holds or is to hold, sealed.
    pub page: Page,
}

impl PageCopy {
    /// A copy of what page `target` is to hold.
    pub fn new(target: PageIdx, page: Page) -> PageCopy {
        PageCopy { target, page }
    }

    /// The copy as it lies in its own page, sealed. The page's id must be that of a blob.
    pub fn to_page(&self) -> Page {
        let mut copy = self.page.clone();
        copy.set_identity(TAG << 32 | u64::from(self.target.0), self.page.id().raw() as u32);
        copy.seal();
        copy
    }

    /// Whether a page with this id and sequence number holds a copy.
    pub(crate) fn looks_like(id: BlobId, sequence: u32) -> bool {
        id.raw() >> 32 == TAG && sequence == 0
    }

    /// The copy that a page with a right CRC holds, if it holds one.
    pub fn from_page(page: &Page) -> Option<PageCopy> {
        if !PageCopy::looks_like(page.id(), page.sequence()) {
            return None;
        }
        let mut original = page.clone();
        original.set_identity(BlobId::from_page(PageIdx(page.reserved())).raw(), 0);
        original.seal();
        Some(PageCopy { target: PageIdx(page.id().raw() as u32), page: original })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_gives_the_page_back_and_is_no_root_to_spdk() {
        let owner = BlobId::from_page(PageIdx(9));
        let page = crate::chain::extent_page(owner, 512, &[7, 0, 8]);
        let copy = PageCopy::new(PageIdx(3), page).to_page();
        assert!(copy.crc_ok());
        assert_eq!(copy.sequence(), 0);
        assert_eq!(copy.id().root_page(), None, "no page index can make this id that of a root");
        let back = PageCopy::from_page(&copy).unwrap();
        assert_eq!(back.target, PageIdx(3));
        assert_eq!(back.page, crate::chain::extent_page(owner, 512, &[7, 0, 8]));
        assert_eq!(PageCopy::from_page(&back.page), None);
    }
}
