//! Standard error and log files, for reports that must not wait for a reader.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Bytes that a pipe accepts at once when it is ready.
const AT_ONCE: usize = 4096;

/// Writes `text` to standard error. If that accepts nothing for as long as `patience`, because the reader of
/// the pipe is stuck or gone, the rest is lost: a reactor must not block on it.
pub fn report(text: &str, patience: Duration) {
    report_to(io::stderr(), text.as_bytes(), patience);
}

/// As [`report`], to a file that is open for writing, such as a log. The number of bytes that were accepted.
pub fn report_to(out: impl AsFd, text: &[u8], patience: Duration) -> usize {
    let mut written = 0;
    while written < text.len() && accepts(&out, patience) {
        let rest = &text[written..];
        // Without the standard library's lock, whose holder may itself be waiting.
        match rustix::io::write(&out, &rest[..rest.len().min(AT_ONCE)]) {
            Ok(more @ 1..) => written += more,
            _ => break,
        }
    }
    written
}

/// True if a file takes bytes now, or within `patience`.
pub fn accepts(out: impl AsFd, patience: Duration) -> bool {
    let limit = Timespec::try_from(patience).ok();
    let mut asked = [PollFd::new(&out, PollFlags::OUT)];
    loop {
        match poll(&mut asked, limit.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(1..) => return asked[0].revents().contains(PollFlags::OUT),
            _ => return false,
        }
    }
}

/// Opens a log: a file to which is appended, made if need be, or a FIFO.
///
/// # Errors
/// The system's; `ENXIO` for a FIFO that nothing reads, for which an ordinary open would wait.
pub fn open_log(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?.into())
}
