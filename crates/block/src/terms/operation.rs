//! What a request may ask of a device.
//!
//! A plain value. Not here: which operations a device supports ([`Device::supports`](crate::Device::supports)).

use std::fmt;

/// What a request asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// Fill the buffers from the range.
    Read,
    /// Store the buffers in the range.
    Write,
    /// Make the range read as zeroes.
    WriteZeroes,
    /// The range's contents are no longer needed; see [`Geometry::unmap_reads_zero`](crate::Geometry::unmap_reads_zero).
    Unmap,
    /// Make durable every write that completed before this was submitted. Has no range.
    Flush,
    /// Compare the buffers with the range; [`Miscompare`](crate::IoErrorKind::Miscompare) names the first byte that
    /// differs.
    Compare,
    /// Compare the first half of the buffers with the range and, if they are equal, store the second half there;
    /// nothing changes the range in between. Is not split.
    CompareAndWrite,
    /// Store in the range the contents of as many blocks from block [`aux`](crate::Io::aux) on. The device defines
    /// the result for overlapping ranges.
    Copy,
    /// Find the first block from the range's start on that may hold data. Its number, or that of the end of
    /// the device, is then in [`aux`](crate::Io::aux). Has no count.
    SeekData,
    /// The same for the first block that is known to hold none.
    SeekHole,
    /// Reset the device; requests under way end, with success or an error. Has no range.
    Reset,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 11] = [
        Operation::Read,
        Operation::Write,
        Operation::WriteZeroes,
        Operation::Unmap,
        Operation::Flush,
        Operation::Compare,
        Operation::CompareAndWrite,
        Operation::Copy,
        Operation::SeekData,
        Operation::SeekHole,
        Operation::Reset,
    ];

    /// True if the operation may change what a later read returns.
    #[inline]
    pub fn changes_data(self) -> bool {
        use Operation::{CompareAndWrite, Copy, Unmap, Write, WriteZeroes};
        matches!(self, Write | WriteZeroes | Unmap | CompareAndWrite | Copy)
    }

    /// True if the operation moves data through the request's buffers.
    #[inline]
    pub fn moves_data(self) -> bool {
        use Operation::{Compare, CompareAndWrite, Read, Write};
        matches!(self, Read | Write | Compare | CompareAndWrite)
    }

    /// Bytes of buffers for one byte of the range.
    #[inline]
    pub(crate) fn share(self) -> u64 {
        if self == Operation::CompareAndWrite { 2 } else { 1 }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::WriteZeroes => "write zeroes",
            Operation::Unmap => "unmap",
            Operation::Flush => "flush",
            Operation::Compare => "compare",
            Operation::CompareAndWrite => "compare and write",
            Operation::Copy => "copy",
            Operation::SeekData => "seek data",
            Operation::SeekHole => "seek hole",
            Operation::Reset => "reset",
        })
    }
}
