//! What `bdev_set_options` set.
//!
//! SPDK's pools and caches of requests and buffers have no counterpart here: their sizes are kept and shown, and have no
//! effect.

use std::cell::Cell;

use serde::Serialize;

/// What is set.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Values {
    pub(crate) bdev_io_pool_size: u32,
    pub(crate) bdev_io_cache_size: u32,
    pub(crate) bdev_auto_examine: bool,
    pub(crate) iobuf_small_cache_size: u32,
    pub(crate) iobuf_large_cache_size: u32,
}

/// What is set, and may be set again.
pub(crate) struct BdevOptions(Cell<Values>);

impl BdevOptions {
    /// All of them.
    pub(crate) fn get(&self) -> Values {
        self.0.get()
    }

    pub(crate) fn set(&self, values: Values) {
        self.0.set(values);
    }
}

impl Default for BdevOptions {
    /// SPDK's.
    fn default() -> BdevOptions {
        BdevOptions(Cell::new(Values {
            bdev_io_pool_size: 65535,
            bdev_io_cache_size: 256,
            bdev_auto_examine: true,
            iobuf_small_cache_size: 128,
            iobuf_large_cache_size: 16,
        }))
    }
}
