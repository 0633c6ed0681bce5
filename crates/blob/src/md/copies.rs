//! Where copies of pages lie that were rewritten in place.

use std::collections::{BTreeMap, BTreeSet};

use spindle_format::PageIdx;
use spindle_format::repair::SectorSums;

/// Where copies of pages lie that were rewritten in place.
///
/// A copy stays for the next rewrite of its page and is overwritten only when the last one is durable: with
/// two copies of a torn page the valid one could not be told, and a single one could be torn too. It is used
/// only when its page is torn, and cleared before its page is freed.
#[derive(Default)]
pub(crate) struct Copies {
    pub(super) of: BTreeMap<PageIdx, Spares>,
    /// Checksums by sector of pages that were rewritten in place.
    pub(super) holds: BTreeMap<PageIdx, SectorSums>,
    /// Pages whose copy is written and that are not rewritten yet.
    pub(super) busy: BTreeSet<PageIdx>,
    /// The number of flushes that had begun when a page was last rewritten.
    pub(super) rewritten: BTreeMap<PageIdx, u64>,
    /// Number of rewrites that have ended.
    pub(super) ended: u64,
}

impl Copies {
    /// Number of pages that hold copies of pages that are not being rewritten: they can be given back.
    pub(super) fn spare_pages(&self) -> u32 {
        let idle = self.of.iter().filter(|(page, _)| !self.busy.contains(page));
        idle.map(|(_, spares)| spares.pages().count() as u32).sum()
    }
}

/// The pages of a copy.
#[derive(Clone, Copy)]
pub(super) struct Spares {
    pub(super) copy: PageIdx,
    /// For its checksums, if they did not fit into it once.
    pub(super) sums: Option<PageIdx>,
}

impl Spares {
    pub(super) fn pages(self) -> impl Iterator<Item = PageIdx> {
        // The copy last: without its checksums it is ignored.
        self.sums.into_iter().chain([self.copy])
    }
}
