//! A blob's metadata as its chain of pages, exactly as SPDK orders and breaks it, and back.
//!
//! Order: flags, the user's xattrs, internal xattrs, then the extent table or run-length list. What does not
//! fit whole into the rest of a page starts the next one. Extent pages stand outside the chain.

mod decode;
mod encode;

pub use decode::{ChainDecoder, ExtentPage, ExtentSlot, MapShape, Parts, decode_extent_page};
pub use encode::{extent_page, link, to_pages};

#[cfg(test)]
mod tests;
