//! What a server announces about an export in the handshake.

use super::Contexts;

/// Transmission flags: what an export can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmissionFlags(u16);

impl TransmissionFlags {
    const HAS_FLAGS: u16 = 1 << 0;
    const READ_ONLY: u16 = 1 << 1;
    const FLUSH: u16 = 1 << 2;
    const FUA: u16 = 1 << 3;
    const TRIM: u16 = 1 << 5;
    const WRITE_ZEROES: u16 = 1 << 6;
    const DF: u16 = 1 << 7;
    const MULTI_CONN: u16 = 1 << 8;
    const CACHE: u16 = 1 << 10;
    const FAST_ZERO: u16 = 1 << 11;

    /// Everything a writable export can do.
    pub const WRITABLE: TransmissionFlags = TransmissionFlags(
        Self::HAS_FLAGS
            | Self::FLUSH
            | Self::FUA
            | Self::TRIM
            | Self::WRITE_ZEROES
            | Self::FAST_ZERO
            | Self::MULTI_CONN
            | Self::CACHE,
    );

    /// Everything a read-only export can do. Flushes are accepted without effect.
    pub const READING: TransmissionFlags = TransmissionFlags(
        Self::HAS_FLAGS | Self::READ_ONLY | Self::FLUSH | Self::FUA | Self::MULTI_CONN | Self::CACHE,
    );

    /// As they are sent: DF is offered with structured replies only.
    pub fn bits(self, structured: bool) -> u16 {
        if structured { self.0 | Self::DF } else { self.0 }
    }

    /// True if only reading is allowed.
    pub fn is_read_only(self) -> bool {
        self.0 & Self::READ_ONLY != 0
    }
}

/// Block sizes that an export advertises, in bytes. Other requests are served too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// A power of two up to 65536.
    pub minimum: u32,
    /// A power of two of at least 512 and the minimum.
    pub preferred: u32,
    /// The most in one read or write.
    pub maximum: u32,
}

/// What a server announces about an export in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name on the server.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// Size in bytes.
    pub size: u64,
    /// What it can do.
    pub flags: TransmissionFlags,
    /// Its recommended block sizes.
    pub block_sizes: BlockSizes,
    /// The contexts for block status.
    pub contexts: Contexts,
}
