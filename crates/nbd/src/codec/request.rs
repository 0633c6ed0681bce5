//! The header of a request in the transmission phase.

use super::Violation;

/// Bytes of a request's header.
pub const REQUEST_LEN: usize = 28;

const MAGIC: u32 = 0x2560_9513;

/// Flags of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandFlags(pub u16);

impl CommandFlags {
    /// Reply when the effect is durable.
    pub const FUA: CommandFlags = CommandFlags(1);
    /// Keep the range allocated.
    pub const NO_HOLE: CommandFlags = CommandFlags(2);
    /// Reply to a read with one chunk of data.
    pub const DF: CommandFlags = CommandFlags(4);
    /// Reply to a block status with one extent.
    pub const REQ_ONE: CommandFlags = CommandFlags(8);
    /// Fail at once if zeroes are not faster than data.
    pub const FAST_ZERO: CommandFlags = CommandFlags(16);

    /// True if all of `flags` are set.
    pub fn contains(self, flags: CommandFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The flags of both.
    pub const fn with(self, flags: CommandFlags) -> CommandFlags {
        CommandFlags(self.0 | flags.0)
    }
}

/// A decoded request, otherwise unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Flags of the command.
    pub flags: CommandFlags,
    /// Number of the command.
    pub command: u16,
    /// The client's identifier for it, returned in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl Request {
    /// Decodes a header.
    ///
    /// # Errors
    /// It does not begin with the magic number: client and server are out of step.
    pub fn parse(bytes: &[u8; REQUEST_LEN]) -> Result<Request, Violation> {
        let [m0, m1, m2, m3, f0, f1, t0, t1, rest @ ..] = *bytes;
        let [c0, c1, c2, c3, c4, c5, c6, c7, o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3] = rest;
        let magic = u32::from_be_bytes([m0, m1, m2, m3]);
        if magic != MAGIC {
            return Err(Violation::RequestMagic(magic));
        }
        Ok(Request {
            flags: CommandFlags(u16::from_be_bytes([f0, f1])),
            command: u16::from_be_bytes([t0, t1]),
            cookie: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            len: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    /// As a client sends it, for tests.
    pub fn to_bytes(&self) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }
}
