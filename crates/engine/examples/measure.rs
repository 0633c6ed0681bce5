//! The cost of the engine's basic operations here: `cargo run --release -p spindle-engine --example measure`.

#![allow(clippy::unwrap_used, reason = "a measurement that fails may stop")]

use std::time::Duration;

use spindle_engine::sim::{Crash, Disk, DiskOptions, Rng, World};
use spindle_engine::{Completion, Driver, Engine, EngineKind, File, Op, OpenOptions, Output, Token};
use spindle_mem::{Buffers, IoBuf};

/// Prints how long one of `count` rounds of `act` takes, by `clock`'s time.
fn measure(clock: &mut dyn Driver, what: &str, count: u32, mut act: impl FnMut(u32)) {
    let start = clock.now();
    (0..count).for_each(&mut act);
    let spent = clock.now().since(start);
    println!("{what:<58} {:>9} ns", spent.as_nanos() / u128::from(count));
}

fn main() {
    let engine = Engine::open(EngineKind::Epoll).unwrap();
    let mut clock = engine.driver(0).unwrap();
    disk(&mut *clock);
    for kind in [EngineKind::IoUring, EngineKind::Epoll, EngineKind::Sim(1)] {
        match Engine::open(kind) {
            Ok(engine) => driver(&mut *clock, &engine),
            Err(error) => println!("{error}"),
        }
    }
}

fn disk(clock: &mut dyn Driver) {
    let disk = Disk::new(DiskOptions::new(4 << 20));
    let mut rng = Rng::new(1);
    measure(clock, "disk: write 4 KiB, a flush every 16", 100_000, |i| {
        disk.write(rng.below(1024) as u64 * 4096, &[i as u8; 4096]).unwrap();
        if i % 16 == 0 {
            disk.flush().unwrap();
        }
    });
    measure(clock, "disk: the same with a snapshot before each write", 100_000, |i| {
        let state = disk.snapshot();
        disk.write(rng.below(1024) as u64 * 4096, &[i as u8; 4096]).unwrap();
        if i % 16 == 0 {
            disk.flush().unwrap();
        }
        drop(state);
    });
    for _ in 0..16 {
        disk.write(rng.below(1024) as u64 * 4096, &[7; 4096]).unwrap();
    }
    let state = disk.snapshot();
    measure(clock, "disk: random crash with 16 x 4 KiB unflushed", 100_000, |_| {
        drop(state.crash(Crash::Random, &mut |n| rng.below(n)));
    });
    measure(clock, "disk: crash, new disk from it, new world with it", 100_000, |i| {
        let image = state.crash(Crash::Random, &mut |n| rng.below(n));
        let world = World::new(u64::from(i));
        world.add_disk("disk", Disk::from_image(image, DiskOptions::new(4 << 20)));
    });
}

fn driver(clock: &mut dyn Driver, engine: &Engine) {
    let name = engine.kind();
    let mut driver = engine.driver(0).unwrap();
    let path = std::env::temp_dir().join(format!("spindle-measure-{}", std::process::id()));
    let file = open(&mut *driver, OpenOptions::new(&path).writable(true).create(4 << 20));
    let mut out = Vec::new();
    measure(clock, &format!("{name}: poll with nothing in flight"), 1_000_000, |_| driver.poll(&mut out));
    let mut spare: Vec<Buffers> = (0..32).map(|_| IoBuf::zeroed(4096).into()).collect();
    measure(clock, &format!("{name}: 32 reads of 4 KiB at once, cached"), 3_000, |_| {
        for (i, buffers) in spare.drain(..).enumerate() {
            let op = Op::Read { file: file.clone(), offset: i as u64 * 4096, buffers };
            driver.submit(Token(i as u64), op);
        }
        finish(&mut *driver, &mut out);
        spare.extend(out.drain(..).map(|done| done.op.into_buffers()));
    });
    // A simulated file is nowhere to be removed.
    let _ = std::fs::remove_file(path);
}

fn open(driver: &mut dyn Driver, options: OpenOptions) -> File {
    let mut out = Vec::new();
    driver.submit(Token(0), Op::Open { options: Box::new(options) });
    finish(driver, &mut out);
    match out.remove(0).result.unwrap() {
        Output::File(file) => file,
        other => panic!("{other:?}"),
    }
}

/// Drives until nothing is in flight.
fn finish(driver: &mut dyn Driver, out: &mut Vec<Completion>) {
    loop {
        driver.poll(out);
        if driver.in_flight() == 0 {
            return;
        }
        let limit = driver.now() + Duration::from_millis(100);
        driver.park(Some(limit));
    }
}
