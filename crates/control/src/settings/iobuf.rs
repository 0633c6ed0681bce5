//! What `iobuf_set_options` set: kept and shown, without effect.

use std::cell::Cell;

use serde::Serialize;

/// What is set.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Values {
    pub(crate) small_pool_count: u64,
    pub(crate) large_pool_count: u64,
    pub(crate) small_bufsize: u32,
    pub(crate) large_bufsize: u32,
    pub(crate) enable_numa: bool,
}

/// What is set, and may be set again.
pub(crate) struct IobufOptions(Cell<Values>);

impl IobufOptions {
    /// All of them.
    pub(crate) fn get(&self) -> Values {
        self.0.get()
    }

    pub(crate) fn set(&self, values: Values) {
        self.0.set(values);
    }
}

impl Default for IobufOptions {
    /// SPDK's.
    fn default() -> IobufOptions {
        IobufOptions(Cell::new(Values {
            small_pool_count: 8192,
            large_pool_count: 1024,
            small_bufsize: 8192,
            large_bufsize: 135_168,
            enable_numa: false,
        }))
    }
}
