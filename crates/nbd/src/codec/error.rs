//! Error numbers on the wire, and faults of a client that end its connection.

use spindle_block::IoErrorKind;

/// An error of a request, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// The export is read-only.
    Permission = 1,
    /// The device failed.
    Io = 5,
    /// The server has no memory for the request.
    NoMemory = 12,
    /// The request breaks the protocol or lies outside the export.
    Invalid = 22,
    /// No space is left, or a write ends beyond the export.
    NoSpace = 28,
    /// Zeroes cannot be written faster than data.
    NotSupported = 95,
    /// The export or the server is going away.
    ShuttingDown = 108,
}

impl ErrorCode {
    /// The code for a failed request of the device.
    pub fn of_device(kind: IoErrorKind) -> ErrorCode {
        match kind {
            IoErrorKind::OutOfRange
            | IoErrorKind::Unaligned
            | IoErrorKind::WriteUnit { .. }
            | IoErrorKind::Segments { .. } => ErrorCode::Invalid,
            IoErrorKind::NoMemory => ErrorCode::NoMemory,
            // EPERM and EROFS: writes are not taken any more.
            IoErrorKind::ReadOnly | IoErrorKind::Device { errno: 1 | 30 } => ErrorCode::Permission,
            IoErrorKind::NoSpace | IoErrorKind::Quota | IoErrorKind::FileTooLarge => ErrorCode::NoSpace,
            // What a device keeps it may abort when it is removed. For an export that stays both are EIO.
            IoErrorKind::Removed | IoErrorKind::Aborted => ErrorCode::ShuttingDown,
            _ => ErrorCode::Io,
        }
    }
}

/// Why a connection is closed without an answer: the following bytes could not be interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Flags that were not offered.
    #[error("the client answered the greeting with unknown flags {0:#x}")]
    ClientFlags(u32),
    /// An option that does not begin as one.
    #[error("an option began with {0:#x} instead of the magic number")]
    OptionMagic(u64),
    /// An option that is too long to skip.
    #[error("an option of {0} bytes exceeds the longest that is accepted")]
    OptionLength(u32),
    /// More options than any client needs.
    #[error("more than {0} options were sent")]
    Options(u32),
    /// An option other than an export's name, without fixed newstyle.
    #[error("option {0} was sent by a client that does not speak fixed newstyle")]
    NotFixed(u32),
    /// The oldest option has no error reply.
    #[error("EXPORT_NAME asked for an export that cannot be served")]
    ExportName,
    /// Bytes that were not encrypted, after the option that begins TLS.
    #[error("bytes followed STARTTLS before it was answered")]
    BytesBeforeTls,
    /// A request that does not begin as one.
    #[error("a request began with {0:#x} instead of the magic number")]
    RequestMagic(u32),
}
