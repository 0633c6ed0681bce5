//! A metadata page as a dump shows it.

use spindle_format::descriptor::Descriptor;
use spindle_format::page::Page;
use spindle_format::{BlobId, FormatError, PageIdx};

/// A metadata page and where it lies.
pub(super) struct PageDump<'a> {
    pub(super) index: PageIdx,
    /// Byte of the image where it begins.
    pub(super) offset: u64,
    /// True if a blob uses it; `None` if the store cannot be loaded.
    pub(super) in_use: Option<bool>,
    pub(super) contents: Contents<'a>,
}

/// The contents of a page.
pub(super) enum Contents<'a> {
    /// Nothing but zeroes.
    Zero,
    /// Anything else. Pages with a wrong CRC are decoded as well, since much of them may be right.
    Page { page: &'a Page, role: Role, descriptors: Vec<Described<'a>> },
}

/// A page's role in its blob, according to the page itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Its CRC is wrong: a loader ignores it.
    Invalid,
    /// The first page of a blob.
    Root,
    /// A later page of a blob's chain.
    Chain,
    /// A piece of a blob's cluster map.
    Extents,
    /// It looks like a root but names another blob, so no loader takes it for one.
    Stray,
}

/// A descriptor and the byte of the image where it begins, or the error there.
pub(super) struct Described<'a> {
    pub(super) offset: u64,
    pub(super) descriptor: Result<Descriptor<'a>, FormatError>,
}

impl<'a> Contents<'a> {
    /// Decodes the slot of page `index`, which begins at byte `offset` of the image.
    pub(super) fn of(slot: &'a [u8], index: PageIdx, offset: u64) -> Contents<'a> {
        let page = match Page::view(slot) {
            Some(page) if page.bytes().iter().any(|&byte| byte != 0) => page,
            _ => return Contents::Zero,
        };
        let mut descriptors = Vec::new();
        let mut walk = page.descriptors(index, offset);
        loop {
            let offset = walk.place().offset();
            let Some(descriptor) = walk.next() else { break };
            descriptors.push(Described { offset, descriptor });
        }
        Contents::Page { page, role: role(page, index, &descriptors), descriptors }
    }
}

fn role(page: &Page, index: PageIdx, descriptors: &[Described]) -> Role {
    let is_extents =
        |described: &Described| matches!(described.descriptor, Ok(Descriptor::ExtentPage { .. }));
    if !page.crc_ok() {
        Role::Invalid
    } else if descriptors.first().is_some_and(is_extents) {
        Role::Extents
    } else if page.sequence() > 0 {
        Role::Chain
    } else if page.id() == BlobId::from_page(index) {
        Role::Root
    } else {
        Role::Stray
    }
}

impl Role {
    /// The role in one word, which scripts rely on.
    pub(super) fn word(self) -> &'static str {
        match self {
            Role::Invalid => "invalid",
            Role::Root => "root",
            Role::Chain => "chain",
            Role::Extents => "extents",
            Role::Stray => "stray",
        }
    }
}
