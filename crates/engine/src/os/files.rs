//! File operations as blocking calls: run on worker threads, never on a reactor's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, SealFlags, SeekFrom, Stat};
use rustix::io::Errno;
use spindle_mem::{Buffers, IoBuf};

use super::geometry;
use super::iovec::{self, IoVecs};
use crate::handle::Body;
use crate::owned::closing::OpenFd;
use crate::owned::reworded::reworded;
use crate::owned::{layers, lock, page_cache};
use crate::{Direct, File, FileInfo, Op, OpenOptions, Output};

/// Bytes of zeroes written at once where the kernel has no faster way.
const ZEROES: usize = 256 << 10;

impl File {
    /// The kernel's descriptor of a file, after checking its engine.
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.0.body {
            Body::Os(fd) => Ok(fd.as_fd()),
            Body::Sim(_) => Err(Errno::BADF.into()),
        }
    }
}

/// Carries out an operation on an open file, blocking until it is done.
pub(crate) fn perform(op: &mut Op, vecs: &mut IoVecs) -> io::Result<Output> {
    match op {
        Op::Inspect { file } => inspect(file).map(Output::Info),
        Op::Read { file, offset, buffers } => read(file, *offset, buffers, vecs).map(Output::Bytes),
        Op::Write { file, offset, buffers } => write(file, *offset, buffers, vecs).map(Output::Bytes),
        Op::Flush { file } => {
            let fd = file.fd()?;
            rustix::io::retry_on_intr(|| rustix::fs::fdatasync(fd))?;
            Ok(Output::Done)
        }
        Op::Seek { file, offset, unit, hole } => {
            let found =
                if *hole { first_hole(file, *offset, *unit) } else { first_data(file, *offset, *unit) };
            found.map(Output::Found)
        }
        Op::ZeroRange { file, offset, length } => zero(file, *offset, *length, vecs).map(|()| Output::Done),
        Op::Discard { file, offset, length } => discard(file, *offset, *length).map(|()| Output::Done),
        other => {
            let message = format!("'{}' is not a file operation", other.name());
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

/// Opens a file or block device, blocking until it is done.
pub(crate) fn open(options: &OpenOptions) -> io::Result<(OpenFd, FileInfo)> {
    let (fd, direct) = open_direct_or_not(options).map_err(|error| holder_or(options, &error))?;
    let stat = rustix::fs::fstat(&fd)?;
    let info = geometry::inspect(fd.as_fd(), direct, options.writable).map_err(|e| named(options, &e))?;
    // If it stayed set, io_uring would refuse to wait for the disk.
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags - OFlags::NONBLOCK)?;
    let locks = match options.locked {
        true => lock::lock(fd.as_fd(), options.writable, &options.path, &stat)?,
        false => Vec::new(),
    };
    if options.writable {
        refuse_unwritable(&fd, &stat, &options.path)?;
        page_cache::write_out_above(&stat);
    }
    // After the lock was taken: another program may have changed since what was read before.
    page_cache::drop_pages_of(fd.as_fd(), &stat);
    Ok((OpenFd::new(fd, locks), info))
}

/// The same kind of error, preceded by the path; the system's own is its source.
fn named(options: &OpenOptions, error: &io::Error) -> io::Error {
    let path = options.path.display();
    let message = match error.kind() {
        _ if options.path.as_os_str().is_empty() => {
            "the name of the file is empty; name an image file or a block device".to_owned()
        }
        io::ErrorKind::NotFound => {
            format!("cannot open {path}: there is no such file; make it first, or correct the path")
        }
        io::ErrorKind::IsADirectory => {
            format!("cannot open {path}: it is a directory; name an image file or a block device")
        }
        io::ErrorKind::PermissionDenied => format!(
            "cannot open {path}: permission denied; let this user {} it, or run as another one",
            if options.writable { "read and write" } else { "read" }
        ),
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "cannot open {path} for writing: its file system is mounted for reading only; mount it for writing, or \
             work on a copy elsewhere"
        ),
        io::ErrorKind::ResourceBusy => match device_above(&options.path) {
            Some(above) => format!("{path} is in use: {} is made of it; free it first", above.display()),
            None => format!("{path} is mounted or in use by another program; free it first"),
        },
        _ => format!("cannot open {path}: {error}{}", remedy(error)),
    };
    reworded(error, message)
}

/// What to do about a path that the system cannot open.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ELOOP) => "; its symbolic links lead back to themselves: name the file itself",
        Some(libc::ENOTDIR) => "; what its path names as a folder is none: correct the path",
        Some(libc::ENXIO) => {
            "; it is a socket, or its device is not there: name a regular file or a block device"
        }
        _ => "",
    }
}

/// Why it cannot be opened: for a claimed device, the process that locked it, if any.
fn holder_or(options: &OpenOptions, error: &io::Error) -> io::Error {
    let locked = || {
        if error.kind() != io::ErrorKind::ResourceBusy {
            return Ok(());
        }
        let fd = rustix::fs::open(&options.path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        lock::lock(fd.as_fd(), true, &options.path, &rustix::fs::fstat(&fd)?).map(drop)
    };
    match locked() {
        Err(locked) if locked.kind() == io::ErrorKind::WouldBlock => locked,
        _ => named(options, error),
    }
}

/// A device made from the one at this path.
fn device_above(path: &Path) -> Option<PathBuf> {
    let device = layers::number_of(&rustix::fs::stat(path).ok()?)?;
    layers::above(Path::new("/"), device)
}

/// An error if writes would fail although the file was opened for writing, which the kernel does not report
/// earlier.
fn refuse_unwritable(fd: &OwnedFd, stat: &Stat, path: &Path) -> io::Result<()> {
    let path = path.display();
    let message = match geometry::is_read_only_device(fd.as_fd(), stat) {
        true => format!("{path} is a read-only device: blockdev --setrw makes it writable if its medium is"),
        false if is_sealed(fd) => format!("{path} is sealed against writing: copy it to a file"),
        false => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, message))
}

/// True if a file in memory is sealed against writes.
fn is_sealed(fd: &OwnedFd) -> bool {
    let sealed = SealFlags::WRITE | SealFlags::FUTURE_WRITE;
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.intersects(sealed))
}

/// For a block device that will be written under a lock: makes the kernel refuse one that is mounted or
/// claimed (EBUSY), which no lock on a file would show.
fn claim(options: &OpenOptions) -> OFlags {
    let wanted = options.locked && options.writable;
    let device = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    if wanted && rustix::fs::stat(&options.path).is_ok_and(device) { OFlags::EXCL } else { OFlags::empty() }
}

fn open_direct_or_not(options: &OpenOptions) -> io::Result<(OwnedFd, bool)> {
    if options.direct != Direct::Off {
        match open_or_create(options, OFlags::DIRECT) {
            Ok(fd) => return Ok((fd, true)),
            // The file system has no direct transfers.
            Err(Errno::INVAL) if options.direct == Direct::Wanted => {}
            Err(Errno::INVAL) => {
                let message = "its file system has no direct transfers (O_DIRECT), which were required";
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((open_or_create(options, OFlags::empty())?, false))
}

fn open_or_create(options: &OpenOptions, extra: OFlags) -> Result<OwnedFd, Errno> {
    let access = if options.writable { OFlags::RDWR } else { OFlags::RDONLY };
    // O_NONBLOCK: the open itself must not wait for the other end of a pipe; files and disks ignore it.
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | claim(options) | extra;
    let open =
        |flags| rustix::io::retry_on_intr(|| rustix::fs::open(&options.path, flags, Mode::from(0o644)));
    let Some(size) = options.create else { return open(flags) };
    loop {
        match open(flags) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        // Creating needs write access to set the size; a read-only opener then opens it again.
        let creating = (flags - OFlags::RWMODE) | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        match open(creating) {
            Ok(fd) => {
                if let Err(refused) = rustix::fs::ftruncate(&fd, size) {
                    // Just created and unusable; a failure to remove it is the lesser error.
                    let _ = rustix::fs::unlink(&options.path);
                    return Err(refused);
                }
                if options.writable {
                    return Ok(fd);
                }
            }
            // Another process was faster: it exists now.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
}

fn inspect(file: &File) -> io::Result<FileInfo> {
    let known = file.info();
    geometry::inspect(file.fd()?, known.direct, known.writable)
}

/// What the system finds from `offset` on; none if there is none before the end.
fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file.fd()?, to) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        // A block device knows no holes.
        Err(Errno::INVAL) => Err(io::Error::new(io::ErrorKind::Unsupported, Errno::INVAL)),
        Err(errno) => Err(unsupported_as_such(errno.into())),
    }
}

/// The first unit that may hold data.
fn first_data(file: &File, offset: u64, unit: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(offset))? {
        Some(found) => Ok(found - found % unit),
        None => Ok(inspect(file)?.size),
    }
}

/// The first unit that holds no data from its first byte to its last.
fn first_hole(file: &File, offset: u64, unit: u64) -> io::Result<u64> {
    let mut from = offset;
    while let Some(hole) = seek(file, SeekFrom::Hole(from))? {
        let found = hole.next_multiple_of(unit);
        match seek(file, SeekFrom::Data(found))? {
            Some(data) if data < found + unit => from = data,
            _ => return Ok(found),
        }
    }
    Ok(inspect(file)?.size)
}

/// Reads until the buffers are full or the file ends.
fn read(file: &File, offset: u64, buffers: &mut Buffers, vecs: &mut IoVecs) -> io::Result<usize> {
    let (fd, length) = (file.fd()?, buffers.len());
    let mut done = 0;
    while done < length {
        let count = iovec::read_at(fd, buffers, done, offset.saturating_add(done as u64), vecs)?;
        done += count;
        if count == 0 || ends_here(file, done) {
            break;
        }
    }
    Ok(done)
}

/// True if a read that stopped after `done` bytes must be at the end: a direct read stops inside a block only
/// there, and the rest could not be read.
pub(crate) fn ends_here(file: &File, done: usize) -> bool {
    file.info().direct && !done.is_multiple_of(512)
}

/// Writes until everything is written.
fn write(file: &File, offset: u64, buffers: &Buffers, vecs: &mut IoVecs) -> io::Result<usize> {
    let (fd, length) = (file.fd()?, buffers.len());
    let mut done = 0;
    while done < length {
        let count = iovec::write_at(fd, buffers, done, offset.saturating_add(done as u64), vecs)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += count;
    }
    Ok(done)
}

fn zero(file: &File, offset: u64, length: u64, vecs: &mut IoVecs) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let size = inspect(file)?.size;
    if offset.checked_add(length).is_none_or(|end| end > size) {
        let message = format!("{length} bytes at {offset} reach past the end of {file:?} ({size} bytes)");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, offset, length) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => write_zeroes(file, offset, length, vecs),
        other => other,
    }
}

fn write_zeroes(file: &File, offset: u64, length: u64, vecs: &mut IoVecs) -> io::Result<()> {
    let chunk = length.min(ZEROES as u64) as usize;
    let mut zeroes = Buffers::from(IoBuf::zeroed(chunk));
    let mut done = 0;
    while done < length {
        let left = length - done;
        if left < chunk as u64 {
            zeroes = Buffers::from(IoBuf::zeroed(left as usize));
        }
        done += write(file, offset + done, &zeroes, vecs)? as u64;
    }
    Ok(())
}

fn discard(file: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    if !file.info().block_device {
        return fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length);
    }
    let range = [offset, length];
    // SAFETY: BLKDISCARD reads two u64 at the address given, which is that of `range`.
    if unsafe { libc::ioctl(file.fd()?.as_raw_fd(), BLKDISCARD, range.as_ptr()) } == 0 {
        return Ok(());
    }
    Err(unsupported_as_such(io::Error::last_os_error()))
}

fn fallocate(file: &File, flags: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
    let fd = file.fd()?;
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(fd, flags, offset, length))
        .map_err(|errno| unsupported_as_such(errno.into()))
}

/// Maps the kernel's different errors for "not supported here" to one kind; others stay.
fn unsupported_as_such(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY | libc::ENODEV) => {
            io::Error::new(io::ErrorKind::Unsupported, error)
        }
        _ => error,
    }
}

/// _IO(0x12, 119)
const BLKDISCARD: libc::Ioctl = 0x1277;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_id::EngineId;
    use crate::os::Workers;

    fn open_in(folder: &tempfile::TempDir, size: u64) -> File {
        let options = OpenOptions::new(folder.path().join("a")).writable(true).create(size);
        Workers::new(EngineId::new(), false).open(&options).unwrap()
    }

    #[test]
    fn zeroes_are_written_where_the_kernel_has_no_faster_way() {
        let folder = tempfile::tempdir().unwrap();
        let (file, mut vecs) = (open_in(&folder, 1 << 20), IoVecs::default());
        write(&file, 0, &Buffers::from(IoBuf::copy_from(&vec![7; 1 << 20])), &mut vecs).unwrap();
        let length = 2 * ZEROES as u64 + 1000;
        write_zeroes(&file, 500, length, &mut vecs).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(bytes.iter().enumerate().all(|(i, byte)| {
            let zeroed = (500..500 + length).contains(&(i as u64));
            *byte == if zeroed { 0 } else { 7 }
        }));
    }

    #[test]
    fn a_file_on_a_file_system_for_reading_only_is_refused_with_a_remedy() {
        let error = io::Error::from_raw_os_error(libc::EROFS);
        let said = named(&OpenOptions::new("ro/disk.img").writable(true), &error).to_string();
        assert!(said.contains("ro/disk.img") && said.contains("mount it for writing"), "{said}");
    }

    #[test]
    fn what_is_neither_file_nor_disk_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
        for path in [path.as_path(), folder.path()] {
            let error = open(&OpenOptions::new(path)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
    }

    #[test]
    fn the_kernels_ways_to_say_not_offered_become_one() {
        for errno in [libc::EOPNOTSUPP, libc::ENOTTY, libc::ENOSYS] {
            let error = unsupported_as_such(io::Error::from_raw_os_error(errno));
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
        let error = unsupported_as_such(io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
}
