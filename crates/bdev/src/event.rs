//! What the holder of a descriptor is told.

use std::sync::Arc;

use crate::counter::Counted;

/// Something happened to an open bdev. Delivered on the thread that opened the descriptor, in a message of its own,
/// never inside the call that caused it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The bdev is being removed: nobody opens it any more. The holder closes its descriptor soon. Requests still
    /// work until every [`Grace`] is dropped or its descriptor closed; later ones end as removed.
    Remove(Grace),
    /// The bdev has another size now: [`Desc::geometry`](crate::Desc::geometry) says which.
    Resize,
}

/// Holds up the end of a removal. A holder that has work to do on the bdev first (a store that is unloaded) keeps it
/// until that is done; one that has not drops it with the event.
#[derive(Clone, Debug)]
#[must_use = "dropping it lets the removal go on"]
pub struct Grace(#[expect(dead_code, reason = "counted while it lives")] Arc<Counted>);

impl Grace {
    pub(crate) fn new(counted: Counted) -> Grace {
        Grace(Arc::new(counted))
    }
}

/// Called with each event; on the descriptor's own thread.
pub(crate) type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;
