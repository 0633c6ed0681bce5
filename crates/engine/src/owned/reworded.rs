//! An error of the system with other words, which keeps its number.

use std::io;

#[derive(Debug)]
struct Named {
    message: String,
    source: io::Error,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Named {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The same kind of error with this message; the system's own is its source.
pub(crate) fn reworded(error: &io::Error, message: String) -> io::Error {
    // The caller keeps the original. Only an error of the system has a number.
    let source = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
    io::Error::new(error.kind(), Named { message, source })
}
