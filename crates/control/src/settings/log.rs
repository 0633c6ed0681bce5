//! Log levels and flags. They are stored and returned; they have no effect yet.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// SPDK's flags for the parts that exist here.
const FLAGS: [&str; 13] = [
    "aio",
    "app_rpc",
    "bdev",
    "bdev_malloc",
    "bdev_null",
    "blob",
    "log_rpc",
    "lvol",
    "nbd",
    "notify_rpc",
    "rpc",
    "thread",
    "vbdev_lvol",
];

/// The settings.
pub(crate) struct LogSettings {
    pub(crate) level: Cell<Level>,
    pub(crate) print_level: Cell<Level>,
    pub(crate) flags: RefCell<BTreeMap<&'static str, bool>>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Level {
    Error,
    Warning,
    Notice,
    Info,
    Debug,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            level: Cell::new(Level::Notice),
            print_level: Cell::new(Level::Info),
            flags: RefCell::new(FLAGS.iter().map(|flag| (*flag, false)).collect()),
        }
    }
}
