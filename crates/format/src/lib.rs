//! SPDK's Blobstore on-disk format v3 as pure functions: bytes in, checked values out, and back.
//!
//! This crate does no I/O, spawns nothing, reads no clock and holds no global state; its values belong to
//! their makers and may live on any thread. The Blobstore, the offline tool, the checker, the fuzzers and the
//! tests all use it, so that there is one interpretation of the format.
//!
//! * [`super_block`], [`mask`], [`page`], [`descriptor`]: one codec per structure.
//! * [`geometry`], [`init`], [`grow`], [`unload`]: the layout, and the writes when a store is made, grows,
//!   and is unloaded.
//! * [`metadata`], [`cluster_map`], [`entries`], [`chain`]: one blob, as values and as its pages on disk.
//! * [`loader`]: asks for byte ranges, takes bytes, ends with a [`Store`]: blobs, bitmaps, relations, and
//!   the [`repair`]s that a writing load has to carry out.
//! * [`resolve`]: which cluster holds a piece of a blob, through snapshots and clones.
//! * [`check`]: everything that is wrong with a loaded store, as a typed list.
//!
//! Not promised: that a structure without CRC (the three masks) is right; [`check`] compares those with the
//! metadata. Bytes of a metadata slot beyond the first 4096 are ignored.
//!
//! Every number from an image is hostile until checked; no input panics, loops without end, or makes this crate
//! hold more than a small multiple of the metadata that the image really contains.
#![forbid(unsafe_code)]

pub mod bitmap;
pub mod chain;
pub mod change;
pub mod check;
pub mod cluster_map;
pub mod crc;
pub mod descriptor;
pub mod entries;
pub mod error;
pub mod extents;
pub mod geometry;
pub mod grow;
pub mod ids;
pub mod init;
pub mod loader;
pub mod mask;
mod mask_kind;
pub mod metadata;
pub mod page;
mod page_layout;
pub mod repair;
pub mod resolve;
pub mod sharing;
pub mod store;
pub mod super_block;
pub mod unload;

pub use bitmap::Bitmap;
pub use change::Change;
pub use cluster_map::ClusterMap;
pub use entries::{Entries, Piece};
pub use error::{FormatError, Place};
pub use geometry::{Geometry, MAX_MD_PAGE_SIZE, Region};
pub use ids::{BlobId, ClusterIdx, PageIdx};
pub use loader::{ByteRange, LoadError, LoadOptions, Loader};
pub use mask::MaskKind;
pub use metadata::{BlobMetadata, ClearMethod, Flags, Parent, Xattr, Xattrs};
pub use page::PAGE_SIZE;
pub use store::{Blob, DamagedBlob, Store};
pub use super_block::SuperBlock;
