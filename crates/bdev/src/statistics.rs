//! A bdev's statistics and limits.
//!
//! The block layer keeps them beside the lanes, for every device with a
//! [`DeviceState`](spindle_block::DeviceState); a bdev reads and sets them here. Statistics are kept from the
//! registration on.

use spindle_block::{
    DeviceState, ErrorCounts, Histogram, HistogramOptions, Limits, Statistics, StatisticsReset,
};
use spindle_reactor::Thread;

use crate::{Bdev, BdevError};

impl Bdev {
    /// Its activity since it was registered, or since its statistics were reset; empty for a device that
    /// keeps none.
    pub fn statistics(&self) -> Statistics {
        self.lanes().map(DeviceState::statistics).unwrap_or_default()
    }

    /// The statistics of each thread that has it open now.
    pub fn thread_statistics(&self) -> Vec<(Thread, Statistics)> {
        let lanes = self.lanes().map(DeviceState::lane_statistics).unwrap_or_default();
        lanes.into_iter().filter_map(|(thread, statistics, _)| Some((thread?, statistics))).collect()
    }

    /// Failed requests, by cause.
    pub fn errors(&self) -> ErrorCounts {
        self.lanes().map(DeviceState::errors).unwrap_or_default()
    }

    /// Resets counts or extremes on every thread. Dropping the future does not stop it.
    pub async fn reset_statistics(&self, what: StatisticsReset) {
        if let Some(lanes) = self.lanes() {
            lanes.reset_statistics(what).await;
        }
    }

    /// Starts a histogram of times, or ends it. Dropping the future does not stop it.
    ///
    /// # Errors
    /// Its device cannot keep one (`ENOTSUP`).
    pub async fn keep_histogram(&self, options: Option<HistogramOptions>) -> Result<(), BdevError> {
        self.reachable()?.keep_histogram(options).await;
        Ok(())
    }

    /// The histogram of times, if one is kept.
    pub fn histogram(&self) -> Option<Histogram> {
        self.lanes().and_then(DeviceState::histogram)
    }

    /// Limits the load on it, over all threads together, from now on. Dropping the future does not stop it.
    ///
    /// # Errors
    /// Its device cannot be limited (`ENOTSUP`).
    pub async fn set_limits(&self, limits: Limits) -> Result<(), BdevError> {
        self.reachable()?.set_limits(limits).await;
        Ok(())
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        self.lanes().map(DeviceState::limits).unwrap_or_default()
    }

    fn lanes(&self) -> Option<&DeviceState> {
        self.0.device.state()
    }

    fn reachable(&self) -> Result<&DeviceState, BdevError> {
        self.lanes().ok_or_else(|| BdevError::Module {
            what: format!("bdev {:?}", self.name()),
            why: "its module does not let its lanes be reached; implement Device::state".to_owned(),
            errno: crate::error::errno::ENOTSUP,
        })
    }
}
