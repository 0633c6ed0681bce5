//! What the bare machine takes for the same pattern, with nothing of ours in between: two pinned OS
//! threads bouncing one cache line. (The bare copy loop is `spindle_block::load::bare_copies`.)

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle::engine::spawn_pinned;

use super::figure::{Figure, Samples};

/// A value on cache lines of its own (two, for the adjacent-line prefetcher).
#[repr(align(128))]
struct OwnLine(AtomicU64);

const STOP: u64 = u64::MAX;

fn wait_for(line: &OwnLine, seen: impl Fn(u64) -> bool) -> u64 {
    loop {
        let value = line.0.load(Ordering::Acquire);
        if seen(value) {
            return value;
        }
        std::hint::spin_loop();
    }
}

/// One word goes to the other core and comes back: `samples` samples of `batch` round trips between OS
/// threads pinned to `cores`.
pub fn cache_line_round_trip(cores: [usize; 2], samples: u64, batch: u64) -> io::Result<Figure> {
    let there = Arc::new(OwnLine(AtomicU64::new(0)));
    let back = Arc::new(OwnLine(AtomicU64::new(0)));
    let (echo_there, echo_back) = (there.clone(), back.clone());
    let echo = spawn_pinned("echo", Some(cores[1]), move || {
        let mut last = 0;
        loop {
            last = wait_for(&echo_there, |value| value != last);
            echo_back.0.store(last, Ordering::Release);
            if last == STOP {
                return;
            }
        }
    })?;
    let caller = spawn_pinned("caller", Some(cores[0]), move || {
        let mut word = 0;
        let mut round_trips = |n: u64| {
            for _ in 0..n {
                word += 1;
                there.0.store(word, Ordering::Release);
                wait_for(&back, |value| value == word);
            }
        };
        round_trips(batch * 10);
        let mut timed = Samples::start("bare cache line there and back");
        for _ in 0..samples {
            timed.time(batch, || round_trips(batch));
        }
        let figure = timed.figure();
        there.0.store(STOP, Ordering::Release);
        figure
    })?;
    let figure = join(caller)?;
    join(echo)?;
    Ok(figure)
}

fn join<T>(thread: std::thread::JoinHandle<T>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a measuring thread panicked"))
}
