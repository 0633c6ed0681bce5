//! What the bare machine takes for the same pattern, with nothing of ours in between: two pinned OS
//! threads bouncing one cache line, and one copying blocks in a loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle_engine::spawn_pinned;

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

/// Copies blocks of `block` bytes out of `size` bytes, in the order that [`block_at`] gives, into
/// `depth` buffers in turn: what a memory disk's reads do, without the disk.
pub fn copy_loop(core: usize, size: usize, block: usize, depth: usize, samples: u64) -> io::Result<Figure> {
    join(spawn_pinned("copy loop", Some(core), move || {
        let disk = vec![1u8; size];
        let mut buffers = vec![vec![0u8; block]; depth];
        let mut next = 0u64;
        let mut copies = |n: u64| {
            for _ in 0..n {
                let at = block_at(next, size, block);
                buffers[next as usize % depth].copy_from_slice(&disk[at..at + block]);
                next += 1;
            }
            std::hint::black_box(&mut buffers);
        };
        let batch = 1024;
        copies(batch * 16);
        let mut timed = Samples::start(format!("bare copy loop, {block} B of {} MiB", size >> 20));
        for _ in 0..samples {
            timed.time(batch, || copies(batch));
        }
        timed.figure()
    })?)
}

/// The offset of the `n`th block visited: scattered, the same for the bare loop and for our disks.
pub fn block_at(n: u64, size: usize, block: usize) -> usize {
    let blocks = (size / block) as u64;
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as usize % blocks as usize * block
}

fn join<T>(thread: std::thread::JoinHandle<T>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a measuring thread panicked"))
}
