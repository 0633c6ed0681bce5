//! Where things lie in a metadata page.

/// Used bytes of a metadata page (and of the super block), for every slot size.
pub const PAGE_SIZE: usize = 4096;

/// Bytes of a page that hold descriptors.
pub const DESCRIPTORS_SIZE: usize = 4072;

/// Byte of a page where its descriptors begin.
pub const DESCRIPTORS_OFFSET: usize = 16;
