//! Sleeping, on the engine's clock: virtual in simulation.
//!
//! The waits of one thread are kept in order of their ends, equal ends in the order they were asked for.
//! A wait ends in the first turn that begins at or after its time; of very many that end at once, in a later one.

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
    /// Kept for its room.
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

    /// Has a wait end with this waker; gives back the one before, if it was another, to be dropped while nothing
    /// of the thread is borrowed. None if the wait is over.
    fn renew(&mut self, key: &Key, waker: &Waker) -> Option<Option<Waker>> {
        let known = self.waiting.get_mut(key)?;
        let other = !known.will_wake(waker);
        Some(other.then(|| std::mem::replace(known, waker.clone())))
    }

    /// Takes those out that wait for `now` or a time before, `most` at most. To be woken while nothing of the
    /// thread is borrowed, as a waker may be anybody's, and the list [given back](Self::keep).
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

    /// Keeps the room of a list for the next.
    pub(crate) fn keep(&mut self, expired: Vec<Waker>) {
        self.expired = expired;
    }
}

/// The future of [`sleep`]. Dropping it ends the wait.
pub struct Sleep {
    until: Until,
}

enum Until {
    /// Not polled yet: the clock of its thread decides.
    Span(Duration),
    /// Not polled yet.
    At(Time),
    Time {
        core: Rc<ThreadCore>,
        key: Key,
    },
    Past,
}

/// Waits until `span` has passed, counted from the first poll. At least that long; how much longer depends
/// on what else the thread does.
///
/// # Panics
/// When polled away from a Spindle thread.
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

/// Runs `future` for `limit` at most. When the time is over the future is dropped: see there what that
/// does.
///
/// # Errors
/// [`Elapsed`] when the time was over first.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let (mut future, mut end) = (pin!(future), pin!(sleep(limit)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| Err(Elapsed(limit))),
    })
    .await
}

/// Ticks once a period: see [`interval`].
pub struct Interval {
    period: Duration,
    next: Option<Time>,
}

/// Ticks at once and then once a `period`, in every turn of the thread if that is 0. A tick that came late
/// moves those behind it: there are no bursts to catch up.
pub fn interval(period: Duration) -> Interval {
    Interval { period, next: None }
}

impl Interval {
    /// Waits for the next tick. Dropping the future loses no tick.
    pub async fn tick(&mut self) {
        match self.next {
            Some(due) if due > current::now() => Sleep::until(due).await,
            // Others have their turns between two ticks all the same.
            Some(_) if self.period.is_zero() => current::yield_now().await,
            _ => {}
        }
        self.next = Some(current::now() + self.period);
    }
}
