//! Size and geometry of an open file or block device.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FileType, Stat};

use crate::FileInfo;

/// What the kernel reports: for a block device its ioctls, for a regular file its status.
pub(super) fn inspect(fd: BorrowedFd<'_>, direct: bool, writable: bool) -> io::Result<FileInfo> {
    let stat = rustix::fs::fstat(fd)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => block_device(fd, &stat, direct, writable),
        FileType::RegularFile => Ok(regular_file(fd, &stat, direct, writable)),
        other => {
            let kind = in_words(other);
            let message = format!("it is {kind}; name an image file or a block device");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

/// A kind of file that holds no blocks.
fn in_words(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        FileType::CharacterDevice => "a character device",
        FileType::Socket => "a socket",
        _ => "of another kind",
    }
}

fn block_device(fd: BorrowedFd<'_>, stat: &Stat, direct: bool, writable: bool) -> io::Result<FileInfo> {
    let size = rustix::fs::ioctl_blksszget(fd)?;
    let physical = rustix::fs::ioctl_blkpbszget(fd).unwrap_or(size);
    let mut bytes = 0u64;
    // SAFETY: BLKGETSIZE64 stores one u64 at the address given, which is that of `bytes`.
    if unsafe { libc::ioctl(fd.as_raw_fd(), BLKGETSIZE64, &mut bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(FileInfo {
        size: bytes,
        logical_block: size,
        physical_block: physical.max(size),
        memory_alignment: if direct { size } else { 1 },
        block_device: true,
        direct,
        writable,
        discard_reads_zero: discard_zeroes(stat),
    })
}

/// The kernel's information on what a discarded block reads; 0 on every kernel since 4.12.
fn discard_zeroes(stat: &Stat) -> bool {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let path = format!("/sys/dev/block/{major}:{minor}/queue/discard_zeroes_data");
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

fn regular_file(fd: BorrowedFd<'_>, stat: &Stat, direct: bool, writable: bool) -> FileInfo {
    let (memory, offset) = direct_alignment(fd).unwrap_or((512, 512));
    let logical_block = offset.max(512);
    let physical = u32::try_from(stat.st_blksize).unwrap_or(4096);
    FileInfo {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        logical_block,
        physical_block: physical.max(logical_block),
        memory_alignment: if direct { memory.max(1) } else { 1 },
        block_device: false,
        direct,
        writable,
        discard_reads_zero: true,
    }
}

/// Alignment of direct transfers in memory and in the file, where the kernel tells it (since 6.1).
fn direct_alignment(fd: BorrowedFd<'_>) -> Option<(u32, u32)> {
    // SAFETY: a statx of zeroes is valid, and the kernel overwrites it.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path with AT_EMPTY_PATH asks about the descriptor itself; both pointers outlive
    // the call.
    let asked = unsafe {
        libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &mut stat)
    };
    let told = asked == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align > 0;
    told.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// _IOR(0x12, 114, size_t)
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;

/// True for a block device that was set read-only. Such a device can still be opened for writing.
pub(super) fn is_read_only_device(fd: BorrowedFd<'_>, stat: &Stat) -> bool {
    let mut read_only: libc::c_int = 0;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    // SAFETY: BLKROGET stores one int at the address given, which is that of `read_only`.
    is_device && unsafe { libc::ioctl(fd.as_raw_fd(), BLKROGET, &mut read_only) } == 0 && read_only != 0
}

/// _IO(0x12, 94)
const BLKROGET: libc::Ioctl = 0x125e;
