//! The most of anything that a client may ask for.

/// Longest name of an export, and longest query for a metadata context, in bytes.
pub const MAX_STRING: usize = 4096;

/// The most bytes in one read or write.
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// The most extents in one reply to a block status request.
pub const MAX_EXTENTS: usize = 16 << 10;
