//! SIGHUPs that main takes itself.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::diagnosis::wait::Wait;
use crate::local::current;
use crate::shared::Shared;

/// The SIGHUPs that arrive while this exists; made by [`Handle::hangups`](crate::Handle::hangups). The newest one
/// made gets them all. When it is dropped, a SIGHUP asks for a stop again.
pub struct Hangups {
    shared: Arc<Shared>,
}

impl Hangups {
    pub(crate) fn new(shared: Arc<Shared>) -> Hangups {
        shared.hangup.take(true);
        Hangups { shared }
    }

    /// Waits until one has arrived since the last call; several in between are one. Dropping the future loses none.
    pub async fn next(&mut self) {
        poll_fn(|cx| {
            let next = self.shared.hangup.poll_next(cx);
            if next == Poll::Pending {
                current::note(Wait::Named("a SIGHUP"));
            }
            next
        })
        .await;
    }
}

impl Drop for Hangups {
    fn drop(&mut self) {
        self.shared.hangup.take(false);
    }
}
