//! The bare machine's time for the same pattern, without this project's code in between. (The bare copy loop
//! is `spindle_block::load::bare_copies`.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use spindle::engine::spawn_pinned;

use super::clock;
use super::figure::Figure;
use super::samples::Samples;

/// A value that shares its cache lines with no other (two lines, for the adjacent-line prefetcher).
#[repr(align(128))]
struct OwnLine(AtomicU64);

const STOP: u64 = u64::MAX;

/// Wall time after which a yardstick stops: another program's work makes it slow.
const LONGEST: u64 = 2_000_000_000;

/// Up to `samples` times within that time; at least three.
fn rounds(samples: u64) -> impl Iterator<Item = u64> {
    let end = clock::wall_ns() + LONGEST;
    (0..samples).take_while(move |&round| round < 3 || clock::wall_ns() < end)
}

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
        for _ in rounds(samples) {
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

/// Lines of a bare ring.
const RING: usize = 1024;

/// A line of a ring: the number of its round, and seven words.
#[repr(align(64))]
#[derive(Default)]
struct Slot([AtomicU64; 8]);

/// Lines of 64 bytes go to the other core through a ring as fast as possible, each with a number that
/// announces it.
pub fn line_stream(cores: [usize; 2], samples: u64, batch: u64) -> io::Result<Figure> {
    let ring: Arc<Vec<Slot>> = Arc::new((0..RING).map(|_| Slot::default()).collect());
    let taken = Arc::new(OwnLine(AtomicU64::new(0)));
    let (slots, seen) = (ring.clone(), taken.clone());
    let reader = spawn_pinned("reader", Some(cores[1]), move || {
        let mut number = 1_u64;
        loop {
            let slot = &slots[number as usize % RING].0;
            let mut found = slot[0].load(Ordering::Acquire);
            while found != number && found != STOP {
                std::hint::spin_loop();
                found = slot[0].load(Ordering::Acquire);
            }
            if found == STOP {
                return;
            }
            black_box(slot[1..].iter().fold(0, |sum, word| sum ^ word.load(Ordering::Relaxed)));
            if number.is_multiple_of(64) {
                seen.0.store(number, Ordering::Release);
            }
            number += 1;
        }
    })?;
    // A multiple of the reader's reporting step, so that a batch ends when all of it was taken.
    let batch = batch.next_multiple_of(64);
    let writer = spawn_pinned("writer", Some(cores[0]), move || {
        let mut number = 0_u64;
        let mut free = RING as u64;
        let mut stream = |n: u64| {
            for _ in 0..n {
                number += 1;
                if number >= free {
                    free = wait_for(&taken, |value| value + RING as u64 > number) + RING as u64;
                }
                let slot = &ring[number as usize % RING].0;
                slot[1..].iter().for_each(|word| word.store(number, Ordering::Relaxed));
                slot[0].store(number, Ordering::Release);
            }
            wait_for(&taken, |value| value == number);
            number
        };
        stream(batch);
        let mut timed = Samples::start("bare ring of lines, other core");
        let mut last = 0;
        for _ in rounds(samples) {
            timed.time(batch, || last = stream(batch));
        }
        let figure = timed.figure();
        ring[(last + 1) as usize % RING].0[0].store(STOP, Ordering::Release);
        figure
    })?;
    let figure = join(writer)?;
    join(reader)?;
    Ok(figure)
}

/// A thread of the operating system wakes another one, which wakes it back: both sleep in between.
pub fn wake_round_trip(cores: [usize; 2], samples: u64, batch: u64) -> io::Result<Figure> {
    let (to_echo, from_caller) = std::sync::mpsc::channel::<std::thread::Thread>();
    let turn = Arc::new(OwnLine(AtomicU64::new(0)));
    let echo_turn = turn.clone();
    let echo = spawn_pinned("echo", Some(cores[1]), move || {
        let Ok(caller) = from_caller.recv() else { return };
        loop {
            match echo_turn.0.load(Ordering::Acquire) {
                STOP => return,
                1 => {
                    echo_turn.0.store(0, Ordering::Release);
                    caller.unpark();
                }
                _ => std::thread::park(),
            }
        }
    })?;
    let echo_thread = echo.thread().clone();
    let caller = spawn_pinned("caller", Some(cores[0]), move || {
        let mut timed = Samples::start("bare wake-up of an OS thread there and back");
        if to_echo.send(std::thread::current()).is_ok() {
            for _ in rounds(samples) {
                timed.time(batch, || {
                    for _ in 0..batch {
                        turn.0.store(1, Ordering::Release);
                        echo_thread.unpark();
                        while turn.0.load(Ordering::Acquire) != 0 {
                            std::thread::park();
                        }
                    }
                });
            }
        }
        turn.0.store(STOP, Ordering::Release);
        echo_thread.unpark();
        timed.figure()
    })?;
    let figure = join(caller)?;
    join(echo)?;
    Ok(figure)
}

/// Boxed closures that do nothing, called one after the other.
pub fn bare_calls(samples: u64, batch: u64) -> Figure {
    let mut calls: Vec<Box<dyn FnMut() -> bool>> = (0..1000_u64)
        .map(|number| {
            let mut left = number + u64::MAX / 2;
            Box::new(move || {
                left -= 1;
                left == 0
            }) as Box<dyn FnMut() -> bool>
        })
        .collect();
    let mut timed = Samples::start("bare call of a boxed closure");
    let turns = batch.div_ceil(calls.len() as u64);
    for _ in rounds(samples) {
        timed.time(turns * calls.len() as u64, || {
            for _ in 0..turns {
                for call in &mut calls {
                    black_box(call());
                }
            }
        });
    }
    timed.figure()
}

/// Takes the first of a heap of 1000 times and puts it back after the others.
pub fn bare_heap(samples: u64, batch: u64) -> Figure {
    let mut heap: BinaryHeap<Reverse<(u64, u64)>> =
        (0..1000).map(|number| Reverse((number, number))).collect();
    let mut timed = Samples::start("bare heap of 1000 times, first to last");
    for _ in rounds(samples) {
        timed.time(batch, || {
            for _ in 0..batch {
                if let Some(mut first) = heap.peek_mut() {
                    first.0.0 += 1000;
                }
                black_box(&heap);
            }
        });
    }
    timed.figure()
}

/// Starts threads of the operating system and waits for their end.
pub fn os_threads(samples: u64, batch: u64) -> io::Result<Figure> {
    let mut timed = Samples::start("bare OS thread, started and joined");
    for _ in rounds(samples) {
        let mut result = Ok(());
        timed.time(batch, || {
            for _ in 0..batch {
                let ended = spawn_pinned("nothing", None, || ()).and_then(join);
                result = std::mem::replace(&mut result, Ok(())).and(ended);
            }
        });
        result?;
    }
    Ok(timed.figure())
}

fn join<T>(thread: JoinHandle<T>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("a measuring thread panicked"))
}
