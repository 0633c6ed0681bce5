//! Sleeping, on the engine's clock: virtual in simulation.
//!
//! The waits of one thread are sorted by their ends, equal ends by the order of the calls. A wait ends in the
//! first turn that begins at or after its time; if very many end at once, in a later one.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use spindle_engine::Time;

use crate::diagnosis::wait::Wait;
use crate::local::current;
use crate::local::thread_core::ThreadCore;
use crate::thread::context;
use crate::time::timers::Key;

/// The future of [`sleep`]. Dropping it ends the wait.
pub struct Sleep {
    until: Until,
}

enum Until {
    /// Not polled yet: the end depends on its thread's clock.
    Span(Duration),
    /// Not polled yet.
    At(Time),
    Time {
        core: Rc<ThreadCore>,
        key: Key,
    },
    Past,
}

/// Waits until `span` has passed, counted from the first poll. At least that long; how much longer depends on
/// the thread's other work.
///
/// # Panics
/// When polled outside a Spindle thread.
pub fn sleep(span: Duration) -> Sleep {
    Sleep { until: Until::Span(span) }
}

impl Sleep {
    fn until(time: Time) -> Sleep {
        Sleep { until: Until::At(time) }
    }

    fn start(core: &Rc<ThreadCore>, time: Time, cx: &Context<'_>) -> Until {
        let key = core.timers.borrow_mut().insert(time, cx.waker().clone());
        Until::Time { core: core.clone(), key }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.until {
            Until::Past => return Poll::Ready(()),
            Until::Span(span) => {
                let core = current::expect("sleep");
                let time = core.local.clock() + *span;
                self.until = Sleep::start(&core, time, cx);
            }
            Until::At(time) => self.until = Sleep::start(&current::expect("sleep"), *time, cx),
            Until::Time { core, key } => {
                let renewed = core.timers.borrow_mut().renew(key, cx.waker());
                if renewed.is_none() {
                    self.until = Until::Past;
                    return Poll::Ready(());
                }
            }
        }
        if let Until::Time { key, .. } = &self.until {
            current::note(Wait::Timer(key.0));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Until::Time { core, key } = &self.until {
            let waker = core.timers.borrow_mut().remove(key);
            drop(waker);
        }
    }
}

/// A future did not end in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not done within {0:?}")]
pub struct Elapsed(pub Duration);

/// Runs `future` for `limit` at most. When the time is over the future is dropped, with the effect that its
/// own documentation states.
///
/// # Errors
/// [`Elapsed`] if the time was over first.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let (mut future, mut end) = (pin!(future), pin!(sleep(limit)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| Err(Elapsed(limit))),
    })
    .await
}

/// Ticks once per period: see [`interval`].
pub struct Interval {
    period: Duration,
    next: Option<Time>,
}

/// Ticks at once and then once per `period`; in every turn of the thread if that is 0. A late tick moves the
/// following ones: there are no bursts to catch up.
pub fn interval(period: Duration) -> Interval {
    Interval { period, next: None }
}

impl Interval {
    /// Waits for the next tick. Dropping the future loses no tick.
    pub async fn tick(&mut self) {
        match self.next {
            Some(due) if due > context::now() => Sleep::until(due).await,
            // Other tasks still have their turns between two ticks.
            Some(_) if self.period.is_zero() => context::yield_now().await,
            _ => {}
        }
        self.next = Some(context::now() + self.period);
    }
}
