//! The kinds of damage that keep a blob from being read.

use crate::error::{FormatError, Place, Problem};
use crate::ids::PageIdx;
use crate::store::DamagedBlob;

/// The kind of damage that keeps a blob from being read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The device cannot read one of its pages.
    Unreadable,
    /// The mask of blob ids names a page that is empty.
    RootMissing,
    /// The root page's CRC is wrong.
    RootCrc,
    /// The root page claims to belong elsewhere.
    RootForeign,
    /// A chain page's CRC is wrong.
    ChainCrc,
    /// The chain leads to an empty page.
    ChainBroken,
    /// The chain leads beyond the metadata pages.
    ChainRange,
    /// The chain leads back into itself.
    ChainLoop,
    /// The chain leads to a page that belongs to another blob's chain.
    ChainCrossLinked,
    /// A page of the chain carries another blob's id.
    ChainForeign,
    /// A page of the chain carries the wrong sequence number.
    ChainSequence,
    /// An extent page's CRC is wrong.
    ExtentCrc,
    /// The extent table names an empty page.
    ExtentMissing,
    /// An extent page has wrong contents.
    ExtentContents,
    /// A descriptor or the blob as a whole breaks a rule.
    Contents,
}

impl Cause {
    /// The kind of damage of a blob, by its first error.
    pub(super) fn of(damaged: &DamagedBlob) -> Cause {
        match damaged.errors.first() {
            Some(error) => judge(damaged, error),
            None => Cause::Contents,
        }
    }

    /// A stable name, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Cause::Unreadable => "unreadable-page",
            Cause::RootMissing => "root-missing",
            Cause::RootCrc => "root-crc",
            Cause::RootForeign => "root-foreign",
            Cause::ChainCrc => "chain-crc",
            Cause::ChainBroken => "chain-broken",
            Cause::ChainRange => "chain-out-of-range",
            Cause::ChainLoop => "chain-loop",
            Cause::ChainCrossLinked => "chain-cross-linked",
            Cause::ChainForeign => "chain-foreign-page",
            Cause::ChainSequence => "chain-sequence",
            Cause::ExtentCrc => "extent-crc",
            Cause::ExtentMissing => "extent-missing",
            Cause::ExtentContents => "extent-contents",
            Cause::Contents => "blob-contents",
        }
    }
}

fn judge(damaged: &DamagedBlob, error: &FormatError) -> Cause {
    let page = match error.place {
        Place::Page { index, .. } | Place::Descriptor { page: index, .. } => Some(index),
        Place::SuperBlock | Place::Mask { .. } => None,
    };
    let root = page.is_some() && page == damaged.id.root_page();
    let chain = !damaged.whole_chain;
    let visited = |page: PageIdx| damaged.pages.contains(&page);
    match &error.problem {
        Problem::Unreadable => Cause::Unreadable,
        Problem::Crc { .. } if root => Cause::RootCrc,
        Problem::Crc { .. } if chain => Cause::ChainCrc,
        Problem::Crc { .. } => Cause::ExtentCrc,
        Problem::Empty(_) if root => Cause::RootMissing,
        Problem::Empty(_) if chain => Cause::ChainBroken,
        Problem::Empty(_) => Cause::ExtentMissing,
        Problem::Claimed(_) if page.is_some_and(visited) || root => Cause::ChainLoop,
        Problem::Claimed(_) => Cause::ChainCrossLinked,
        Problem::Field { field: "next", .. } if chain => Cause::ChainRange,
        Problem::Field { field: "id", .. } if chain && root => Cause::RootForeign,
        Problem::Field { field: "id", .. } if chain => Cause::ChainForeign,
        Problem::Field { field: "sequence_num", .. } if chain && !page.is_some_and(visited) => {
            Cause::ChainSequence
        }
        _ if !root && !page.is_some_and(visited) => Cause::ExtentContents,
        _ => Cause::Contents,
    }
}
