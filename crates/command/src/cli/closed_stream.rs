//! Paths that name a standard stream which was closed when the process started.
//!
//! Rust's start opens `/dev/null` in its place: what is written there is lost, and what is read is empty, without an
//! error.

use spindle_engine::{StandardStream, was_closed};
use std::fs;
use std::path::Path;

/// The most symbolic links that lead to a stream, as the kernel allows.
const MOST_LINKS: usize = 40;

/// True if a path, such as `/dev/stdout` or `/proc/self/fd/1`, leads to a standard stream that was closed.
pub(crate) fn leads_to_closed(path: &Path) -> bool {
    let streams = [StandardStream::Input, StandardStream::Output, StandardStream::Error];
    let mut closed = streams.into_iter().filter(|stream| was_closed(*stream));
    closed.any(|stream| leads_to(path, stream as u8))
}

/// True if a path leads to this descriptor of the process.
fn leads_to(path: &Path, descriptor: u8) -> bool {
    let Ok(own) = fs::canonicalize("/proc/self/fd") else { return false };
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_number = path.file_name().is_some_and(|name| name == descriptor.to_string().as_str());
        if is_number && fs::canonicalize(folder).is_ok_and(|folder| folder == own) {
            return true;
        }
        let Ok(next) = fs::read_link(&path) else { return false };
        path = folder.join(next);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_stream_leads_to_it_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/fd/1", &link).unwrap();
        for path in ["/proc/self/fd/1", "/dev/fd/1"].map(Path::new).into_iter().chain([link.as_path()]) {
            assert!(leads_to(path, 1), "{}", path.display());
            assert!(!leads_to(path, 0), "{}", path.display());
        }
        for path in ["/dev/null", "-", "1", "", "/", "/proc/self/fd", "/nowhere/1"] {
            assert!(!leads_to(Path::new(path), 1), "{path}");
        }
    }
}
