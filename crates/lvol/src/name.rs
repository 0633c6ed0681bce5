//! Names of stores and volumes, checked once on input.

use crate::LvolError;

/// The most bytes of a name: SPDK stores 64 with the terminating NUL.
const LONGEST: usize = 63;

/// A name of 1 to 63 bytes, none of them NUL.
///
/// Slashes, quotes and line feeds are allowed, as in SPDK; code that shows names quotes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(String);

impl Name {
    /// Checks a name. `what` is the kind of object, for the error.
    pub(crate) fn new(what: &'static str, name: &str) -> Result<Name, LvolError> {
        let refused = |why: &str| LvolError::Name { what, name: name.to_owned(), why: why.to_owned() };
        match name.len() {
            0 => Err(refused("it is empty; give 1 to 63 bytes")),
            1..=LONGEST if name.contains('\0') => Err(refused("it contains a NUL; leave that out")),
            1..=LONGEST => Ok(Name(name.to_owned())),
            long => Err(refused(&format!("it has {long} bytes; give at most {LONGEST}"))),
        }
    }

    /// The name in an xattr, up to its NUL, if it is valid.
    pub(crate) fn from_xattr(value: &[u8]) -> Option<Name> {
        let end = value.iter().position(|&byte| byte == 0)?;
        let name = std::str::from_utf8(&value[..end]).ok()?;
        Name::new("name", name).ok()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As SPDK writes it for a new volume: 64 bytes.
    pub(crate) fn padded(&self) -> Vec<u8> {
        let mut bytes = self.0.clone().into_bytes();
        bytes.resize(LONGEST + 1, 0);
        bytes
    }

    /// As SPDK writes it for a rename, and for stores: with one NUL.
    pub(crate) fn terminated(&self) -> Vec<u8> {
        let mut bytes = self.0.clone().into_bytes();
        bytes.push(0);
        bytes
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_63_bytes_and_come_back_from_both_forms_on_disk() {
        let longest = "n".repeat(63);
        for good in ["a", "a/b", "quote\"q", "line\nline", "\u{fc}", &longest] {
            let name = Name::new("name", good).unwrap();
            assert_eq!(Name::from_xattr(&name.padded()).unwrap(), name);
            assert_eq!(Name::from_xattr(&name.terminated()).unwrap(), name);
            assert_eq!(name.padded().len(), 64);
        }
        for bad in ["", "nul\0x", &"n".repeat(64), &"\u{fc}".repeat(32)] {
            assert_eq!(Name::new("name", bad).unwrap_err().errno(), 22);
        }
        for bad in [&b""[..], b"\0", b"abc", b"\xff\0", &[b'n'; 64]] {
            assert_eq!(Name::from_xattr(bad), None);
        }
    }
}
