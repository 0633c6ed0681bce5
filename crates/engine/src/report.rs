//! Standard error and log files, for reports that must not wait for a reader.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes that a pipe accepts at once when it is ready.
const AT_ONCE: usize = 4096;

/// Writes `text` to standard error. If that accepts nothing for as long as `patience`, because the reader of
/// the pipe is stuck or gone, the rest is lost: a reactor must not block on it.
pub fn report(text: &str, patience: Duration) {
    report_to(io::stderr(), text, patience);
}

/// As [`report`], to a file that is open for writing, such as a log.
pub fn report_to(out: impl AsFd, text: &str, patience: Duration) {
    let limit = Timespec::try_from(patience).ok();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let mut asked = [PollFd::new(&out, PollFlags::OUT)];
        match poll(&mut asked, limit.as_ref()) {
            Ok(1..) if asked[0].revents().contains(PollFlags::OUT) => {}
            _ => return,
        }
        // Without the standard library's lock, whose holder may itself be waiting.
        match rustix::io::write(&out, &rest[..rest.len().min(AT_ONCE)]) {
            Ok(written @ 1..) => rest = &rest[written..],
            _ => return,
        }
    }
}
