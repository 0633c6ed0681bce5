//! The keys that were added, each a file that only the daemon's user may read.
//!
//! Nothing uses a key yet. As in SPDK, a file is not read until its key is used.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A key.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The keys, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Keyring(RefCell<Vec<Key>>);

/// Why a key was not added or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(
        "the key '{0}' names a keyring that does not exist; give 'name' without the part before the colon"
    )]
    NoKeyring(String),
    #[error("the key '{0}' exists already; remove it by keyring_file_remove_key, or choose another name")]
    Exists(String),
    #[error("there is no key '{0}'; keyring_get_keys lists them")]
    Unknown(String),
    #[error("'{}' is not an absolute path; give one", .0.display())]
    Relative(PathBuf),
    #[error("'{}' may be read by others (mode {mode:o}); restrict it to its owner: chmod 600", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("'{}' belongs to the user {owner}; it must belong to the daemon's user, {user}", path.display())]
    Foreign { path: PathBuf, owner: u32, user: u32 },
    /// The answer begins with the reason.
    #[error("the key's file '{}' cannot be accessed; name a file that is there and in folders open to the daemon's user", path.display())]
    File { path: PathBuf, source: io::Error },
}

impl Keyring {
    /// All of them.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.0.borrow().clone()
    }

    /// Adds a key. Looks at its file, which is quick.
    pub(crate) fn add(&self, name: String, path: PathBuf) -> Result<(), KeyError> {
        if name.find(':').is_some_and(|at| at > 0) {
            return Err(KeyError::NoKeyring(name));
        }
        if self.place(&name).is_some() {
            return Err(KeyError::Exists(name));
        }
        check(&path)?;
        self.0.borrow_mut().push(Key { name, path });
        Ok(())
    }

    /// Removes one; its file stays.
    pub(crate) fn remove(&self, name: &str) -> Result<(), KeyError> {
        let place = self.place(name).ok_or_else(|| KeyError::Unknown(name.to_owned()))?;
        self.0.borrow_mut().remove(place);
        Ok(())
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.borrow().iter().position(|key| own(&key.name) == own(name))
    }
}

/// The name in the one keyring: "k" and ":k" are the same.
fn own(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, name)| name)
}

fn check(path: &Path) -> Result<(), KeyError> {
    if !path.is_absolute() {
        return Err(KeyError::Relative(path.to_owned()));
    }
    let file = |source| KeyError::File { path: path.to_owned(), source };
    let (found, user) = (std::fs::metadata(path).map_err(file)?, rustix::process::getuid().as_raw());
    let (mode, owner) = (found.mode() & 0o777, found.uid());
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    if owner != user {
        return Err(KeyError::Foreign { path: path.to_owned(), owner, user });
    }
    Ok(())
}
