//! Events for holders of descriptors.

use std::sync::Arc;

use crate::counter::Counted;

/// An event of an open bdev. Delivered on the thread that opened the descriptor, as a separate message, never
/// inside the call that caused it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The bdev is being removed and cannot be opened any more. The holder should close its descriptor soon.
    /// Requests still work until every [`Grace`] is dropped; later ones end as removed. A holder that stores the
    /// event drops the grace itself: closing the descriptor does not.
    Remove(Grace),
    /// The bdev's size has changed; [`Desc::geometry`](crate::Desc::geometry) returns the new one.
    Resize,
}

/// Delays the end of a removal. A holder with work to do on the bdev first (a store that must be unloaded)
/// keeps it until that is done; other holders drop it with the event. The removal waits for as long as it, or a clone,
/// is kept, even after the descriptor was closed; a dump of the runtime then names the bdev and its holders.
#[derive(Clone, Debug)]
#[must_use = "dropping it lets the removal go on"]
pub struct Grace {
    #[expect(dead_code, reason = "counted while it lives")]
    requests: Arc<Counted>,
    stay: Stay,
}

/// Delays only the very end of a removal: requests no longer work.
#[derive(Clone, Debug)]
pub(crate) struct Stay(#[expect(dead_code, reason = "counted while it lives")] Arc<Counted>);

impl Grace {
    pub(crate) fn new(requests: Counted, stay: Counted) -> Grace {
        Grace { requests: Arc::new(requests), stay: Stay(Arc::new(stay)) }
    }

    /// Delays only the very end from now on.
    pub(crate) fn into_stay(self) -> Stay {
        self.stay
    }
}

/// Called with each event; on the descriptor's own thread.
pub(crate) type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;
