//! The end of a listener.

use std::sync::atomic::{AtomicBool, Ordering};

use spindle_reactor::WaitList;

/// Ends a listener, and reports that it has ended.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) asked: AtomicBool,
    pub(crate) over: AtomicBool,
    raising: WaitList,
}

impl End {
    pub(crate) fn raise(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        self.raising.wake_all();
    }

    pub(crate) async fn raised(&self, flag: &AtomicBool) {
        self.raising.until(|| flag.load(Ordering::Acquire).then_some(())).await;
    }
}
