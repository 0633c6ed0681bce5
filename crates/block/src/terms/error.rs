//! Errors of requests and of opening a device, with the object's name and the remedy.
//!
//! Inside the stack a request carries a [`Status`]: small, `Copy`, nothing to allocate or format. The channel
//! turns it into an [`IoError`] at the top, where people may read it.

use std::sync::Arc;

use crate::{GeometryError, Operation};

/// How a request ended, as layers pass it upwards.
pub type Status = Result<(), IoErrorKind>;

/// Why a request failed, without its place: small and `Copy`, for use inside the I/O stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum IoErrorKind {
    /// The range does not lie inside the device.
    #[error("the range ends beyond the device; ask its geometry for its size")]
    OutOfRange,
    /// Offset or length is not a multiple of the block size, or the buffers do not hold the range.
    #[error("offset and length must be multiples of the block size, and buffers as long as the range")]
    Unaligned,
    /// A write that is not made of whole units of the device.
    #[error(
        "the device is written in whole units of {blocks} blocks; begin at a multiple, and write a multiple"
    )]
    WriteUnit {
        /// Blocks of a unit.
        blocks: u32,
    },
    /// A block, or a write unit, lies in more runs of memory than the device takes.
    #[error("a block lies in more runs of memory than the device takes, {most}; use longer runs")]
    Segments {
        /// Runs that the device takes in a transfer.
        most: u32,
    },
    /// A request that changes data, on a device that only reads.
    #[error("the device is read-only; open it for writing")]
    ReadOnly,
    /// The device, or what lies below it, is full.
    #[error("no space is left; free some or make the device larger")]
    NoSpace,
    /// The quota of the file system below it is used up (EDQUOT).
    #[error("the disk quota is used up: free some of it or have it raised")]
    Quota,
    /// The file would become larger than the process or the file system allows (EFBIG).
    #[error("no file may be so large here: raise the limit (ulimit -f), or use another file system")]
    FileTooLarge,
    /// The device does not support the operation.
    #[error("the device does not support this operation")]
    Unsupported,
    /// The operating system reported an error.
    #[error("the system reports: {}{}", std::io::Error::from_raw_os_error(*errno), remedy(*errno))]
    Device {
        /// As in errno(3).
        errno: i32,
    },
    /// The medium cannot read or write these blocks; others may work.
    #[error("the medium failed at these blocks; restore them from elsewhere, replace the device")]
    Medium,
    /// The device did not answer in time; its blocks hold old or new data.
    #[error("the device did not answer in time; check that it can be reached")]
    TimedOut,
    /// The buffers differ from the range they were compared with.
    #[error("the data differs from byte {offset} of the request on")]
    Miscompare {
        /// The first byte that differs, counted from the start of the request.
        offset: u32,
    },
    /// No memory is available now.
    #[error("no memory is free for the request now; repeat it when others have ended")]
    NoMemory,
    /// The other end of a network or guest protocol refused it.
    #[error("the device reports status {0:#x} of its protocol")]
    Protocol(
        /// As the module's protocol encodes it.
        u32,
    ),
    /// The request was aborted, or a layer dropped it; its blocks hold old or new data.
    #[error("the request was aborted before it ended; repeat it if it is still wanted")]
    Aborted,
    /// A lane lost the request: it dropped its [`Split`](crate::Split), or ended it as a request of its own. Its blocks
    /// hold old or new data. The name of its device is reported to the log.
    #[error("a device on the way lost the request: the log names it; correct its module")]
    Lost,
    /// The device was removed while the request waited.
    #[error("the device was removed; close it")]
    Removed,
}

/// What to do about an error of the operating system that comes although the device was opened for writing.
fn remedy(errno: i32) -> &'static str {
    match errno {
        // EPERM.
        1 => "; the file was sealed or made immutable (lsattr shows it): undo that, and open it again",
        // EROFS.
        30 => {
            "; its file system does not take writes any more: the kernel's log says why (dmesg), mount it for writing again"
        }
        _ => "",
    }
}

impl IoErrorKind {
    /// The kind for an error of the operating system.
    pub fn from_os(error: &std::io::Error) -> IoErrorKind {
        // On every Linux this builds for: ENOSPC 28, EDQUOT 122, EFBIG 27, EOPNOTSUPP 95, ENODEV
        // 19, ENOMEM 12, ETIMEDOUT 110, and ENODATA 61, by which block devices report an unreadable sector.
        match error.raw_os_error() {
            Some(12) => IoErrorKind::NoMemory,
            Some(61) => IoErrorKind::Medium,
            Some(110) => IoErrorKind::TimedOut,
            Some(28) => IoErrorKind::NoSpace,
            Some(122) => IoErrorKind::Quota,
            Some(27) => IoErrorKind::FileTooLarge,
            Some(95) => IoErrorKind::Unsupported,
            Some(19) => IoErrorKind::Removed,
            Some(errno) => IoErrorKind::Device { errno },
            None if error.kind() == std::io::ErrorKind::Interrupted => IoErrorKind::Aborted,
            None if error.kind() == std::io::ErrorKind::Unsupported => IoErrorKind::Unsupported,
            // EIO, for an error without a number.
            None => IoErrorKind::Device { errno: 5 },
        }
    }

    /// The same kind without the fields of a single request: for counting.
    pub fn class(self) -> IoErrorKind {
        match self {
            IoErrorKind::Miscompare { .. } => IoErrorKind::Miscompare { offset: 0 },
            other => other,
        }
    }
}

/// A failed request: which device, which operation, which bytes, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} of {len} bytes at offset {offset} of {device}: {kind}")]
pub struct IoError {
    /// Name of the device.
    pub device: Arc<str>,
    /// What was asked.
    pub operation: Operation,
    /// First byte asked for.
    pub offset: u64,
    /// Bytes asked for.
    pub len: u64,
    /// Why it failed.
    pub kind: IoErrorKind,
}

/// Why a device could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused.
    #[error("{}", refused(.device, .source))]
    System {
        /// Name of the device.
        device: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another opener writes to it.
    #[error("{}", in_use(.device, .holder))]
    Busy {
        /// Name of the device.
        device: String,
        /// The holder, as far as known.
        holder: String,
    },
    /// Its size or block size is not valid for a device.
    #[error("{device}: {source}")]
    Geometry {
        /// Name of the device.
        device: String,
        /// What is wrong with it.
        source: GeometryError,
    },
    /// Devices are stacked deeper than a request has frames for.
    #[error("{device}: {depth} modules would lie above the lowest device, at most {max} may; stack fewer")]
    TooDeep {
        /// Name of the device.
        device: String,
        /// Modules that the stack would have.
        depth: usize,
        /// [`MAX_DEPTH`](crate::MAX_DEPTH).
        max: usize,
    },
    /// The caller runs on no Spindle thread.
    #[error(
        "{device}: channels live on a thread of a runtime; open it inside `Runtime::run` or `Thread::run`"
    )]
    NotOnThread {
        /// Name of the device.
        device: String,
    },
    /// Any other reason, in the module's words.
    #[error("{device}: {reason}")]
    Other {
        /// Name of the device.
        device: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// The system's error with the device's name, once: the engine's errors about files have it already.
fn refused(device: &str, source: &std::io::Error) -> String {
    let source = source.to_string();
    match source.contains(device) {
        true => source,
        false => format!("{device}: cannot be opened: {source}"),
    }
}

/// Completes a holder's name to a sentence that names the remedy.
fn in_use(device: &str, holder: &str) -> String {
    // The system's message already does, and begins with the path.
    match holder.contains("is in use") {
        true if holder.starts_with(device) => holder.to_owned(),
        true => format!("{device}: {holder}"),
        false => format!("{device}: in use by {holder}; close that first, or open read-only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_host_are_kinds_of_their_own_with_a_remedy() {
        let kind = |errno| IoErrorKind::from_os(&std::io::Error::from_raw_os_error(errno));
        for (errno, expected, says) in [
            (28, IoErrorKind::NoSpace, "no space"),
            (122, IoErrorKind::Quota, "quota"),
            (27, IoErrorKind::FileTooLarge, "ulimit -f"),
            // The device was open for writing, so "open it for writing" is no remedy.
            (30, IoErrorKind::Device { errno: 30 }, "mount it for writing again"),
            (1, IoErrorKind::Device { errno: 1 }, "immutable"),
        ] {
            assert_eq!(kind(errno), expected);
            assert!(kind(errno).to_string().contains(says));
        }
    }

    #[test]
    fn a_device_that_the_system_refuses_is_named_once() {
        let refused = |source: &str| {
            OpenError::System { device: "/a.img".into(), source: std::io::Error::other(source) }.to_string()
        };
        assert_eq!(refused("no memory"), "/a.img: cannot be opened: no memory");
        assert_eq!(refused("cannot open /a.img: no such file"), "cannot open /a.img: no such file");
    }

    #[test]
    fn a_device_in_use_is_said_to_be_so_once_and_with_a_way_out() {
        let busy =
            |holder: &str| OpenError::Busy { device: "a.img".into(), holder: holder.into() }.to_string();
        assert_eq!(
            busy("another store"),
            "a.img: in use by another store; close that first, or open read-only"
        );
        let locked = "/tmp/a.img is in use, locked by process 7; stop that first";
        assert_eq!(busy(locked), format!("a.img: {locked}"));
        let locked = "a.img is in use, locked by process 7; stop that first";
        assert_eq!(busy(locked), locked);
    }
}
