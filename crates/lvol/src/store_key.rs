//! How to find a store.

use spindle_bdev::Uuid;

/// A store's name or UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKey {
    /// By its name.
    Name(String),
    /// By its UUID.
    Uuid(Uuid),
}

impl std::fmt::Display for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreKey::Name(name) => write!(f, "{name:?}"),
            StoreKey::Uuid(uuid) => write!(f, "{uuid}"),
        }
    }
}
