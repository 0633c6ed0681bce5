//! Sleeping, on the engine's clock: virtual in simulation.
//!
//! The waits of one thread are sorted by their ends, equal ends by the order of the calls. A wait ends in the
//! first turn that begins at or after its time; if very many end at once, in a later one.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use spindle_engine::Time;

use crate::core::ThreadCore;
use crate::current;
use crate::wait::{self, Wait};

/// When a wait ends, and its number among equals.
type Key = (Time, u64);

/// The waits of one thread.
#[derive(Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<Key, Waker>,
    next: u64,
    /// Kept for its capacity.
    expired: Vec<Waker>,
}

impl Timers {
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|((time, _), _)| *time)
    }

    fn insert(&mut self, time: Time, waker: Waker) -> Key {
        self.next += 1;
        let key = (time, self.next);
        self.waiting.insert(key, waker);
        key
    }

    /// Sets the waker of a wait; returns the previous one, if it differed, to be dropped while nothing of the
    /// thread is borrowed. `None` if the wait is over.
    fn renew(&mut self, key: &Key, waker: &Waker) -> Option<Option<Waker>> {
        let known = self.waiting.get_mut(key)?;
        let other = !known.will_wake(waker);
        Some(other.then(|| std::mem::replace(known, waker.clone())))
    }

    /// Takes at most `most` waits that end at `now` or before. Wake them while nothing of the thread is
    /// borrowed, as wakers run foreign code, and [give the list back](Self::keep).
    pub(crate) fn expire(&mut self, now: Time, most: usize) -> Vec<Waker> {
        let mut expired = std::mem::take(&mut self.expired);
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now || expired.len() == most {
                break;
            }
            expired.push(first.remove());
        }
        expired
    }

    /// Keeps a list for its capacity.
    pub(crate) fn keep(&mut self, expired: Vec<Waker>) {
        self.expired = expired;
    }
}

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
            wait::note(Wait::Timer(key.0));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Until::Time { core, key } = &self.until {
            let waker = core.timers.borrow_mut().waiting.remove(key);
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
            Some(due) if due > current::now() => Sleep::until(due).await,
            // Other tasks still have their turns between two ticks.
            Some(_) if self.period.is_zero() => current::yield_now().await,
            _ => {}
        }
        self.next = Some(current::now() + self.period);
    }
}
