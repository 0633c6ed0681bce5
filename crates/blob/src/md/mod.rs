//! The metadata of a store, on its metadata thread.
//!
//! [`Md`] is owned by the thread that called init or load and never leaves it; handles on other threads send
//! their operations here ([`on_md`]). Operations that write a blob's chain take [`Md::lock`] one after the other.
//! Threads that write fill their new clusters themselves (`data/new_cluster.rs`) and send them here to be mapped
//! ([`commit`]).
//!
//! An operation that needs a blob's map to itself freezes the blob *before* it takes the lock, since an
//! allocation under way may need the lock to end. After every wait an operation checks again what it found
//! before: the store may have been left, the blob deleted, its clones or its parent changed.
//!
//! Not promised: anything after a write or flush of metadata has failed; then every change is refused until
//! the store is loaded again.
//!
//! # How it is divided
//!
//! State, each in its own type that does not use [`Md`]: [`blob_state`] (a blob), [`changes`] (of its map,
//! waiting), [`copies`] (of pages), [`flushes`], [`found`] (by the load), [`zeroing`] (ahead), [`behind`] (what
//! deletions leave), [`draft`] (new contents); free clusters and pages are in `crate::space`. [`metadata`] holds
//! them together.
//!
//! Methods of [`Md`], from the ground up:
//!
//! 1. the disk: [`pages`] (commands, flushes by name, pages), [`rewrite`] (in place), [`super_block`], [`persist`]
//!    (a whole chain), [`commit`] (one change of a map);
//! 2. other threads: [`views`] (what they see), [`freeze`] (keeping them out), [`clusters`] and [`zero_ahead`] (free
//!    clusters for them), [`clear_behind`] (after deletions);
//! 3. operations on blobs: [`create`], [`resize`], [`snapshot`], [`remove`] (with [`merge_in_place`]), [`parent`], [`replace`], [`unmap`],
//!    [`shallow_copy`], [`info`], [`openings`];
//! 4. the store: [`load`], [`read`], [`grow`], [`unload`], [`stores`] (of the thread), [`store_ref`] and [`wanted`]
//!    (what keeps it loaded).

mod behind;
mod blob_state;
mod changes;
mod clear_behind;
mod clusters;
mod commit;
mod copies;
mod create;
mod draft;
mod flushes;
mod found;
mod freeze;
mod grow;
mod info;
mod links;
mod load;
mod merge_in_place;
mod metadata;
mod openings;
mod pages;
mod parent;
mod persist;
mod read;
mod remove;
mod replace;
mod resize;
mod rewrite;
mod shallow_copy;
mod snapshot;
mod store_ref;
mod stores;
mod super_block;
mod turns;
mod unload;
mod unmap;
mod views;
mod wanted;
mod zero_ahead;
mod zeroing;

pub(crate) use blob_state::BlobState;
pub(crate) use draft::Draft;
pub(crate) use links::set_parent;
pub(crate) use load::{Loaded, init, load};
pub(crate) use metadata::Md;
pub(crate) use openings::Opened;
pub(crate) use persist::Persist;
pub(crate) use store_ref::StoreRef;
pub(crate) use stores::on_md;
pub(crate) use turns::Turns;
pub(crate) use wanted::Wanted;
