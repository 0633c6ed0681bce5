//! Standard error, for what must not wait until somebody reads it.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes that a pipe takes at once when it says that it is ready.
const AT_ONCE: usize = 4096;

/// Writes `text` to standard error. Where that takes nothing for as long as `patience`, because nobody reads the
/// pipe that it is, or nobody is there any more, the rest is lost: a reactor must not stand still for it.
pub fn report(text: &str, patience: Duration) {
    let (out, limit) = (io::stderr(), Timespec::try_from(patience).ok());
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let mut asked = [PollFd::new(&out, PollFlags::OUT)];
        match poll(&mut asked, limit.as_ref()) {
            Ok(1..) if asked[0].revents().contains(PollFlags::OUT) => {}
            _ => return,
        }
        // Not by the library's lock: whoever holds that may itself be waiting.
        match rustix::io::write(&out, &rest[..rest.len().min(AT_ONCE)]) {
            Ok(written @ 1..) => rest = &rest[written..],
            _ => return,
        }
    }
}
