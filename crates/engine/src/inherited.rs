//! File descriptors that the process was started with, by their numbers.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// Another descriptor of what the process has open under that number, with the same position and flags. Call it before
/// the process opens files of its own, whose numbers the caller does not know.
///
/// # Errors
/// Nothing is open there (`EBADF`).
pub fn inherited(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| rustix::io::Errno::BADF)?;
    // SAFETY: F_DUPFD_CLOEXEC takes any number, and changes nothing about what is open there.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Writes a short text at once, without waiting for a reader: at most the 4096 bytes that a pipe takes when it is ready.
///
/// # Errors
/// The descriptor is open for reading only, takes nothing now, or takes less; or the system's error.
pub fn write_at_once(out: impl AsFd, text: &str) -> io::Result<()> {
    if rustix::fs::fcntl_getfl(&out)? & OFlags::ACCMODE == OFlags::RDONLY {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is open for reading only"));
    }
    let mut asked = [PollFd::new(&out, PollFlags::OUT)];
    poll(&mut asked, Some(&Timespec::default()))?;
    if asked[0].revents().is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "it takes nothing now: its reader does not read",
        ));
    }
    match rustix::io::write(&out, text.as_bytes())? {
        written if written == text.len() => Ok(()),
        written => Err(io::Error::new(io::ErrorKind::WriteZero, format!("it took only {written} bytes"))),
    }
}
