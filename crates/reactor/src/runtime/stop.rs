//! A stop that main handles itself: it is notified, ends its work, and returns.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::diagnosis::wait::Wait;
use crate::local::current;
use crate::shared::{Shared, Stop};

/// Resolves to the origin of a stop when one is asked for: a signal's name, or `stop`. Made by
/// [`Handle::stop_requested`](crate::Handle::stop_requested).
pub struct StopRequested {
    shared: Arc<Shared>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl StopRequested {
    pub(crate) fn new(shared: Arc<Shared>) -> StopRequested {
        let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
        let wake = waker.clone();
        shared.on_stop(move || {
            let waker = wake.lock().unwrap_or_else(PoisonError::into_inner).take();
            waker.into_iter().for_each(Waker::wake);
        });
        StopRequested { shared, waker }
    }
}

impl Future for StopRequested {
    type Output = &'static str;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<&'static str> {
        // The waker is stored first, so that a stop in between finds it.
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        match self.shared.stop() {
            Some(Stop { by, .. }) => Poll::Ready(by),
            None => {
                current::note(Wait::Named("a stop"));
                Poll::Pending
            }
        }
    }
}
