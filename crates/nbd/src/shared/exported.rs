//! An export of a server, and its statistics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Export;
use crate::overlap::Overlaps;
use crate::stats::Counts;

/// An export of a server. Stays until the last connection that uses it has ended.
pub(crate) struct Exported {
    /// Never reused by its server.
    pub(crate) number: u64,
    pub(crate) export: Export,
    /// Shared by all exports of one device.
    pub(crate) overlaps: Arc<Overlaps>,
    /// Statistics of ended connections.
    past: Mutex<Counts>,
    failed_flushes: AtomicU64,
}

impl Exported {
    pub(crate) fn new(number: u64, export: Export, overlaps: Arc<Overlaps>) -> Arc<Exported> {
        let failed_flushes = AtomicU64::new(0);
        Arc::new(Exported { number, export, overlaps, past: Mutex::default(), failed_flushes })
    }

    pub(crate) fn flush_failed(&self) {
        self.failed_flushes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed_flushes(&self) -> u64 {
        self.failed_flushes.load(Ordering::Relaxed)
    }

    /// Adds the statistics of an ended connection.
    pub(crate) fn remember(&self, counts: Counts) {
        *self.past.lock().unwrap_or_else(PoisonError::into_inner) += counts;
    }

    pub(crate) fn past(&self) -> Counts {
        *self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
