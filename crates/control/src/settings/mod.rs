//! Settings that some methods set and others show. Handlers reach them through their context.

pub(crate) mod bdev_options;
pub(crate) mod copies;
pub(crate) mod core_times;
pub(crate) mod framework;
pub(crate) mod histograms;
pub(crate) mod iobuf;
pub(crate) mod keyring;
pub(crate) mod queue_depth;
pub(crate) mod scheduler;
pub(crate) mod sockets;
