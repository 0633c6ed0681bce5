//! A blob's metadata as its chain of pages, exactly as SPDK orders and breaks it, and back.
//!
//! Order: flags, the user's xattrs, internal xattrs, then the extent table or run-length list. A descriptor
//! that does not fit whole into the rest of a page starts the next one. Extent pages are not part of the
//! chain.

mod decode;
mod encode;

pub use decode::{ChainDecoder, ExtentPage, ExtentSlot, MapShape, Parts, decode_extent_page};
pub use encode::{extent_page, link, to_pages};

#[cfg(test)]
mod tests;
