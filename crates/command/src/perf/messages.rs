//! The cost of a message: alone, as a call, in a flood, and beside another thread's flood.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use spindle::reactor::{Handle, JoinHandle, Mode, Thread, yield_now};

use super::figure::Figure;
use super::samples::{self, Samples};
use super::{Effort, Failed, Figures, aims, clock, runtime, yardstick};

type Measured = Result<Figure, Failed>;

/// Messages and calls beside the cache line, floods beside a bare ring and a bare call.
pub(crate) fn messages(effort: Effort) -> Figures {
    let runtime = runtime(2)?;
    let cores = runtime.cores();
    if cores[0] == cores[1] {
        return Err("messages between cores need two cores, and this process may use one".into());
    }
    let cores = [cores[0], cores[1]];
    effort.progress.at("bare lines and calls");
    let line = yardstick::cache_line_round_trip(cores, effort.samples, effort.batch)?;
    let ring = yardstick::line_stream(cores, effort.samples, effort.batch * 4)?;
    let bare_call = yardstick::bare_calls(effort.samples, effort.batch);
    let bare = [line.clone(), ring.clone(), bare_call.clone()];
    let measured = runtime.run(async move || -> Figures {
        // As SPDK's reactors always do; sleeping reactors are measured elsewhere.
        let handle = Handle::current().ok_or("not on a Spindle thread")?;
        handle.set_mode(Mode::Poll);
        let there = Thread::create("there", &format!("[{}]", cores[1]))?;
        let here = Thread::create("here", &format!("[{}]", cores[0]))?;
        effort.progress.at("messages and calls");
        let across = round_trip("message there and back, other core", &there, effort).await?;
        let run = call("run and back, other core", &there, effort).await?;
        let on_one = round_trip("message there and back, same core", &here, effort).await?;
        let run_on_one = call("run and back, same core", &here, effort).await?;
        effort.progress.at("floods");
        let flood_across = flood("message flood, other core, per message", &there, effort).await?;
        let flood_here = flood("message flood, same core, per message", &here, effort).await?;
        let mut figures = vec![
            across.against(&line, aims::MESSAGE_ROUND_TRIPS),
            run.against(&line, aims::RUN_ROUND_TRIPS),
            on_one,
            run_on_one,
            flood_across.against(&ring, aims::FLOOD_ACROSS.ratio()),
            flood_here.against(&bare_call, aims::FLOOD_HERE.ratio()),
        ];
        figures.extend(flooded(&there, &here, effort).await?);
        handle.set_mode(Mode::Adaptive);
        Ok(figures)
    });
    Ok(bare.into_iter().chain(measured??).collect())
}

/// The slowest messages alone, and while another thread of the same core floods a third one. A sample is the
/// 99th percentile of single round trips.
async fn flooded(there: &Thread, here: &Thread, effort: Effort) -> Figures {
    let alone = slowest("slowest messages (p99), other core, alone", there, effort).await?;
    let few = flood_beside(here, Thread::create_on("sink", there.cores())?, 8);
    let beside = slowest("slowest messages (p99), beside a flood, 8 sent in a poll", there, effort).await?;
    few.abort();
    let many = flood_beside(here, Thread::create_on("sink", there.cores())?, 256);
    // A thread that sends this many without a break holds its core meanwhile, so this has no aim.
    let behind = slowest("slowest messages (p99), beside a flood, 256 sent in a poll", there, effort).await?;
    many.abort();
    Ok(vec![alone.clone(), beside.against(&alone, aims::FLOODED), behind])
}

/// Floods `sink` from a thread beside the caller's, with `in_a_poll` messages in each poll.
fn flood_beside(here: &Thread, sink: Thread, in_a_poll: u32) -> JoinHandle<Result<(), Failed>> {
    here.spawn(async move || {
        loop {
            for _ in 0..1024 / in_a_poll {
                for _ in 0..in_a_poll {
                    sink.send_msg(|| ())?;
                }
                yield_now().await;
            }
            // At most as many in flight as the other core takes, so that memory stays bounded.
            sink.run(async || ()).await?;
        }
    })
}

async fn slowest(what: &str, there: &Thread, effort: Effort) -> Measured {
    let mut timed = Samples::start(what);
    let trips = effort.batch.min(200);
    for sample in effort.rounds(effort.samples.min(50)) {
        let mut singles = Vec::with_capacity(trips as usize);
        for number in 0..trips {
            let start = clock::wall_ns();
            there.run(async move || number).await?;
            singles.push((clock::wall_ns() - start) as f64);
        }
        singles.sort_by(f64::total_cmp);
        if sample > 0 {
            timed.add_each(trips, samples::at(&singles, 0.99));
        }
    }
    Ok(timed.figure())
}

/// A message goes there, and the one that it sends comes back, and so on: a sample is a batch of round
/// trips, with nothing but messages in it.
async fn round_trip(what: &str, there: &Thread, effort: Effort) -> Measured {
    let here = Thread::current().ok_or("not on a Spindle thread")?;
    // Leaked, so that a message carries a reference and no count changes hands: only the message is measured.
    let ends: &'static Ends = Box::leak(Box::new(Ends { here, there: there.clone() }));
    let mut timed = Samples::start(what);
    for sample in effort.rounds(effort.samples) {
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

/// The time when the last message came back, and the waker to call then.
struct Done {
    at: AtomicU64,
    waker: Waker,
}

/// The two threads between which a message goes. On separate cache lines: both cores read them with every
/// message, and a neighbour might be written by one of them.
#[repr(align(128))]
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

/// Makes a future on another thread and awaits its result here.
async fn call(what: &str, there: &Thread, effort: Effort) -> Measured {
    let calls = async || {
        for number in 0..effort.batch {
            let answer = there.run(async move || number).await?;
            debug_assert_eq!(answer, number, "the answer of this call");
        }
        Ok(())
    };
    Samples::start(what).rounds(effort, effort.samples, effort.batch, calls).await
}

/// Sends messages as fast as possible; the last one reports that all have run.
async fn flood(what: &str, there: &Thread, effort: Effort) -> Measured {
    let batch = effort.batch * 16;
    let messages = async || {
        for _ in 0..batch {
            there.send_msg(|| ())?;
        }
        Ok(there.run(async || ()).await?)
    };
    Samples::start(what).rounds(effort, effort.samples.min(50), batch, messages).await
}
