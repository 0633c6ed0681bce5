//! The kinds of requests that a bdev may support, with SPDK's order and names.

use spindle_block::{Device, Operation};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are SPDK's, and say it")]
pub enum IoType {
    Read,
    Write,
    Unmap,
    Flush,
    Reset,
    NvmeAdmin,
    NvmeIo,
    NvmeIoMd,
    WriteZeroes,
    Zcopy,
    GetZoneInfo,
    ZoneManagement,
    ZoneAppend,
    Compare,
    CompareAndWrite,
    Abort,
    SeekHole,
    SeekData,
    Copy,
    NvmeIovMd,
    NvmeNssr,
    WriteUncorrectable,
}

impl IoType {
    /// All kinds, in the order in which SPDK lists them.
    pub const ALL: [IoType; 22] = [
        IoType::Read,
        IoType::Write,
        IoType::Unmap,
        IoType::Flush,
        IoType::Reset,
        IoType::NvmeAdmin,
        IoType::NvmeIo,
        IoType::NvmeIoMd,
        IoType::WriteZeroes,
        IoType::Zcopy,
        IoType::GetZoneInfo,
        IoType::ZoneManagement,
        IoType::ZoneAppend,
        IoType::Compare,
        IoType::CompareAndWrite,
        IoType::Abort,
        IoType::SeekHole,
        IoType::SeekData,
        IoType::Copy,
        IoType::NvmeIovMd,
        IoType::NvmeNssr,
        IoType::WriteUncorrectable,
    ];

    fn of_operation(operation: Operation) -> Option<IoType> {
        Some(match operation {
            Operation::Read => IoType::Read,
            Operation::Write => IoType::Write,
            Operation::WriteZeroes => IoType::WriteZeroes,
            Operation::Unmap => IoType::Unmap,
            Operation::Flush => IoType::Flush,
            Operation::Compare => IoType::Compare,
            Operation::CompareAndWrite => IoType::CompareAndWrite,
            Operation::Copy => IoType::Copy,
            Operation::SeekData => IoType::SeekData,
            Operation::SeekHole => IoType::SeekHole,
            Operation::Reset => IoType::Reset,
            // Newer kinds without a name here are not shown.
            _ => return None,
        })
    }

    /// Its name in `supported_io_types` of `bdev_get_bdevs`.
    pub fn name(self) -> &'static str {
        match self {
            IoType::Read => "read",
            IoType::Write => "write",
            IoType::Unmap => "unmap",
            IoType::Flush => "flush",
            IoType::Reset => "reset",
            IoType::NvmeAdmin => "nvme_admin",
            IoType::NvmeIo => "nvme_io",
            IoType::NvmeIoMd => "nvme_io_md",
            IoType::WriteZeroes => "write_zeroes",
            IoType::Zcopy => "zcopy",
            IoType::GetZoneInfo => "get_zone_info",
            IoType::ZoneManagement => "zone_management",
            IoType::ZoneAppend => "zone_append",
            IoType::Compare => "compare",
            IoType::CompareAndWrite => "compare_and_write",
            IoType::Abort => "abort",
            IoType::SeekHole => "seek_hole",
            IoType::SeekData => "seek_data",
            IoType::Copy => "copy",
            IoType::NvmeIovMd => "nvme_iov_md",
            IoType::NvmeNssr => "nvme_nssr",
            IoType::WriteUncorrectable => "write_uncorrectable",
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoTypes(u32);

impl IoTypes {
    /// The kinds that a device supports, plus those that the block layer provides for every device: abort, and
    /// write zeroes on a device that can be written. As in SPDK, comparing and copying are shown only where the
    /// device does them itself.
    pub fn of_device(device: &dyn Device) -> IoTypes {
        let supported = Operation::ALL.into_iter().filter(|operation| device.supports(*operation));
        let provided =
            IoTypes::of(&[IoType::Abort]).with(IoType::WriteZeroes, device.supports(Operation::Write));
        supported.filter_map(IoType::of_operation).fold(provided, |types, io_type| types.with(io_type, true))
    }

    /// The set of these kinds.
    pub const fn of(types: &[IoType]) -> IoTypes {
        let mut bits = 0;
        let mut at = 0;
        while at < types.len() {
            bits |= 1 << types[at] as u8;
            at += 1;
        }
        IoTypes(bits)
    }

    /// The same set with `io_type` added or removed.
    #[must_use]
    pub const fn with(self, io_type: IoType, yes: bool) -> IoTypes {
        let bit = 1 << io_type as u8;
        IoTypes(if yes { self.0 | bit } else { self.0 & !bit })
    }

    /// True if the kind is in the set.
    pub const fn contains(self, io_type: IoType) -> bool {
        self.0 & 1 << io_type as u8 != 0
    }

    /// Every kind and whether it is in the set, in SPDK's order.
    pub fn iter(self) -> impl Iterator<Item = (IoType, bool)> {
        IoType::ALL.into_iter().map(move |io_type| (io_type, self.contains(io_type)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_lists_every_kind_once_in_order() {
        let set = IoTypes::of(&[IoType::Read, IoType::WriteUncorrectable]).with(IoType::Flush, true);
        assert!(set.contains(IoType::Flush) && !set.with(IoType::Flush, false).contains(IoType::Flush));
        let listed: Vec<(IoType, bool)> = set.iter().collect();
        assert_eq!(listed.iter().filter(|(_, yes)| *yes).count(), 3);
        assert!(listed.windows(2).all(|pair| pair[0].0 < pair[1].0) && listed.len() == 22);
    }
}
