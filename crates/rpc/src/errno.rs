//! The system's error numbers that methods answer with, and their names as SPDK prints them.

use std::fmt;

/// An error number of the system. As the code of an answer it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// Operation not permitted.
    pub const PERM: Errno = Errno(1);
    /// No such file or directory.
    pub const NOENT: Errno = Errno(2);
    /// Input/output error.
    pub const IO: Errno = Errno(5);
    /// Bad file descriptor.
    pub const BADF: Errno = Errno(9);
    /// Resource temporarily unavailable.
    pub const AGAIN: Errno = Errno(11);
    /// Cannot allocate memory.
    pub const NOMEM: Errno = Errno(12);
    /// Permission denied.
    pub const ACCES: Errno = Errno(13);
    /// Bad address.
    pub const FAULT: Errno = Errno(14);
    /// Device or resource busy.
    pub const BUSY: Errno = Errno(16);
    /// File exists.
    pub const EXIST: Errno = Errno(17);
    /// No such device.
    pub const NODEV: Errno = Errno(19);
    /// Is a directory.
    pub const ISDIR: Errno = Errno(21);
    /// Invalid argument.
    pub const INVAL: Errno = Errno(22);
    /// File too large.
    pub const FBIG: Errno = Errno(27);
    /// No space left on device.
    pub const NOSPC: Errno = Errno(28);
    /// Read-only file system.
    pub const ROFS: Errno = Errno(30);
    /// Numerical result out of range.
    pub const RANGE: Errno = Errno(34);
    /// File name too long.
    pub const NAMETOOLONG: Errno = Errno(36);
    /// Invalid or incomplete multibyte or wide character.
    pub const ILSEQ: Errno = Errno(84);
    /// Operation not supported.
    pub const OPNOTSUPP: Errno = Errno(95);
    /// Connection timed out.
    pub const TIMEDOUT: Errno = Errno(110);
    /// Required key not available.
    pub const NOKEY: Errno = Errno(126);
    /// Operation canceled.
    pub const CANCELED: Errno = Errno(125);

    /// An error number as the system gave it.
    pub fn from_raw(number: i32) -> Errno {
        Errno(number)
    }

    /// The code of an answer.
    pub fn code(self) -> i32 {
        -self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let name = text.rsplit_once(" (os error").map_or(&*text, |(name, _)| name);
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_number_has_the_words_that_spdk_prints() {
        assert_eq!(Errno::NODEV.to_string(), "No such device");
        assert_eq!(Errno::TIMEDOUT.to_string(), "Connection timed out");
        assert_eq!(Errno::NODEV.code(), -19);
    }
}
