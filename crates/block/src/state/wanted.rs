//! What a device wants its lane tables to do beside its lanes: counting, timing, limits.
//!
//! Part of the device's state; each lane has a copy.

use std::sync::Arc;

use crate::state::histogram::LaneHistogram;
use crate::state::limits::Account;
use crate::state::statistics::Counters;

/// What the device wants from its lanes; changed by `DeviceState`.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) counters: Option<Arc<Counters>>,
    pub(crate) histogram: Option<Arc<LaneHistogram>>,
    pub(crate) account: Option<Arc<Account>>,
}

impl Wanted {
    pub(crate) fn is_nothing(&self) -> bool {
        self.counters.is_none() && self.histogram.is_none() && self.account.is_none()
    }
}
