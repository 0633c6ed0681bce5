//! What a message costs: alone, as a call, and in a flood.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use spindle::reactor::Thread;

use super::Effort;
use super::clock;
use super::figure::{Figure, Samples};

type Measured = Result<Figure, Box<dyn std::error::Error + Send + Sync>>;

/// A message goes there, and the one that it sends comes back, and so on: a sample is a batch of round
/// trips, with nothing but messages in it.
pub(super) async fn round_trip(what: &str, there: &Thread, effort: Effort) -> Measured {
    let here = Thread::current().ok_or("not on a Spindle thread")?;
    // For ever, so that a message carries a reference and no count changes hands: the message is measured.
    let ends: &'static Ends = Box::leak(Box::new(Ends { here, there: there.clone() }));
    let mut timed = Samples::start(what);
    for sample in 0..effort.samples + 1 {
        let done = Arc::new(Done {
            at: AtomicU64::new(0),
            waker: poll_fn(|cx| Poll::Ready(cx.waker().clone())).await,
        });
        let start = clock::wall_ns();
        bounce(ends, effort.batch, done.clone());
        let end = poll_fn(|_| match done.at.load(Ordering::Relaxed) {
            0 => Poll::Pending,
            end => Poll::Ready(end),
        });
        let end = end.await;
        if sample > 0 {
            timed.add(effort.batch, end - start);
        }
    }
    Ok(timed.figure())
}

/// When the last message came back, and whom to wake then.
struct Done {
    at: AtomicU64,
    waker: Waker,
}

/// The two threads that a message goes between.
struct Ends {
    here: Thread,
    there: Thread,
}

/// Sends a message there and back `left` times, and then notes the time in `done`.
fn bounce(ends: &'static Ends, left: u64, done: Arc<Done>) {
    // Both threads live as long as the measurement.
    let _ = ends.there.send_msg(move || {
        let _ = ends.here.send_msg(move || match left {
            1 => {
                done.at.store(clock::wall_ns(), Ordering::Relaxed);
                done.waker.wake_by_ref();
            }
            _ => bounce(ends, left - 1, done),
        });
    });
}

/// A future is made there, and its result is awaited here.
pub(super) async fn call(what: &str, there: &Thread, effort: Effort) -> Measured {
    let mut timed = Samples::start(what);
    for sample in 0..effort.samples + 1 {
        let start = clock::wall_ns();
        for number in 0..effort.batch {
            let answer = there.run(async move || number).await?;
            debug_assert_eq!(answer, number, "the answer of this call");
        }
        if sample > 0 {
            timed.add(effort.batch, clock::wall_ns() - start);
        }
    }
    Ok(timed.figure())
}

/// Messages are sent as fast as they go; the last one tells that all have run.
pub(super) async fn flood(what: &str, there: &Thread, effort: Effort) -> Measured {
    let mut timed = Samples::start(what);
    let batch = effort.batch * 64;
    for sample in 0..effort.samples.min(50) + 1 {
        let start = clock::wall_ns();
        for _ in 0..batch {
            there.send_msg(|| ())?;
        }
        there.run(async || ()).await?;
        if sample > 0 {
            timed.add(batch, clock::wall_ns() - start);
        }
    }
    Ok(timed.figure())
}
