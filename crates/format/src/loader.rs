//! Loading without I/O: the loader says which bytes it wants, takes them, and ends with a [`Store`].
//!
//! ```no_run
//! # fn read(_: spindle_format::ByteRange) -> std::io::Result<Vec<u8>> { unimplemented!() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use spindle_format::{LoadOptions, Loader};
//! let mut loader = Loader::new(64 << 20, LoadOptions::default());
//! while let Some(range) = loader.next_read() {
//!     loader.supply(range, &read(range)?);
//! }
//! let store = loader.finish()?;
//! # Ok(()) }
//! ```
//!
//! Many reads may be in flight: ask [`Loader::next_read`] until it has no more, supply what comes back in
//! any order, ask again; when it has no more and nothing is in flight, [`Loader::finish`].

use crate::error::FormatError;
use crate::store::Store;
use crate::super_block::BsType;

/// A range of an image in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: usize,
}

/// How to load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadOptions {
    /// Block size of the device in bytes: reads are multiples of it. 512 by default.
    pub block_size: u32,
    /// The store must carry this type; any by default.
    pub bs_type: Option<BsType>,
    /// Ignore the masks of a clean store and read all metadata.
    pub force_recover: bool,
    /// The largest read in bytes; 1 MiB by default.
    pub max_read: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { block_size: 512, bs_type: None, force_recover: false, max_read: 1 << 20 }
    }
}

/// Why a store cannot be loaded at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The super block or the layout it describes is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The store belongs to another program.
    #[error("the store's type is {found:?}, asked for was {wanted:?}: name that type or none")]
    WrongType {
        /// The type on disk.
        found: BsType,
        /// The type asked for.
        wanted: BsType,
    },
    /// `finish` came before everything was read.
    #[error("the store was not read completely: supply every range that next_read names")]
    Unfinished,
}

/// Turns bytes of an image into a [`Store`]. Owned by whoever drives it; does no I/O of its own.
#[derive(Debug)]
pub struct Loader {
    _private: (),
}

impl Loader {
    /// A loader for an image or device of so many bytes.
    pub fn new(_device_bytes: u64, _options: LoadOptions) -> Loader {
        todo!()
    }

    /// The next range to read, each named once; `None` if nothing more is wanted until something in flight
    /// has come back, or ever.
    pub fn next_read(&mut self) -> Option<ByteRange> {
        todo!()
    }

    /// The bytes of a range that [`Loader::next_read`] named.
    pub fn supply(&mut self, _range: ByteRange, _bytes: &[u8]) {
        todo!()
    }

    /// The device could not read a range: whatever lies in it counts as damaged.
    pub fn read_failed(&mut self, _range: ByteRange) {
        todo!()
    }

    /// How much of the metadata has been read, and how much there is to read, in bytes.
    pub fn progress(&self) -> (u64, u64) {
        todo!()
    }

    /// The store.
    ///
    /// # Errors
    /// The super block cannot be used, the store is of another type, or not everything was supplied.
    pub fn finish(self) -> Result<Store, LoadError> {
        todo!()
    }
}
