//! The simulation alone: one seed, one history; virtual time; whose turn it is.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::suite::{buffer, pattern};
use spindle_engine::sim::{Disk, DiskOptions, Fault, Operation, World};
use spindle_engine::{Completion, Driver, Op, OpenOptions, Output, Time, Token, spawn_pinned};
use spindle_mem::IoBuf;

/// Three cores that write, read and flush one disk and sleep in between. Returns the trace hash, and
/// the tokens in the order in which they completed.
fn busy_history(seed: u64) -> (u64, Vec<u64>) {
    let world = World::new(seed);
    world.add_disk("disk", Disk::new(DiskOptions::new(1 << 20)));
    let mut drivers: Vec<_> = (0..3).map(|core| world.driver(core)).collect();
    let mut out: Vec<Completion> = Vec::new();
    let open = Op::Open { options: Box::new(OpenOptions::new("disk").writable(true)) };
    drivers[0].submit(Token(0), open);
    let file = loop {
        let core = world.next_core().expect("an open is under way");
        drivers[core].poll(&mut out);
        if let Some(done) = out.pop() {
            let Output::File(file) = done.result.unwrap() else { panic!("no file") };
            break file;
        }
        drivers[core].park(None);
    };
    for i in 0..60u64 {
        let (file, offset) = (file.clone(), (i % 7) * 4096);
        let op = match i % 5 {
            0 => Op::Flush { file },
            1 | 2 => Op::Read { file, offset, buffers: IoBuf::zeroed(4096).into() },
            _ => Op::Write { file, offset, buffers: buffer(&pattern(4096, i as u8)) },
        };
        drivers[i as usize % 3].submit(Token(i), op);
    }
    let mut order = Vec::new();
    while order.len() < 60 {
        let core = world.next_core().expect("operations are under way");
        drivers[core].poll(&mut out);
        order.extend(out.drain(..).map(|done| done.token.0));
        let pause = Duration::from_micros(drivers[core].choose(50) as u64);
        let deadline = world.now() + pause;
        drivers[core].park(Some(deadline));
    }
    (world.trace_hash(), order)
}

#[test]
fn one_seed_gives_one_history() {
    for seed in 0..20 {
        assert_eq!(busy_history(seed), busy_history(seed));
    }
}

#[test]
fn different_seeds_give_different_histories() {
    let hashes: BTreeSet<u64> = (0..50).map(|seed| busy_history(seed).0).collect();
    assert_eq!(hashes.len(), 50);
    let orders: BTreeSet<Vec<u64>> = (0..50).map(|seed| busy_history(seed).1).collect();
    assert!(orders.len() > 45, "operations overtake each other: {} orders", orders.len());
}

#[test]
fn everything_that_happens_changes_the_hash() {
    let hash = |act: &dyn Fn(&World)| {
        let world = World::new(1);
        let mut driver = world.driver(0);
        driver.park(None);
        act(&world);
        world.trace_hash()
    };
    let acts: [&dyn Fn(&World); 7] = [
        &|_| {},
        &|world| world.event("a"),
        &|world| world.event("b"),
        &|world| world.event(7u64),
        &|world| world.event((7u64, "a")),
        &|world| assert!(world.choose(2) < 2),
        &|world| assert_ne!(world.random(), 0),
    ];
    let hashes: BTreeSet<u64> = acts.iter().map(|act| hash(act)).collect();
    assert_eq!(hashes.len(), acts.len());
}

#[test]
fn the_clock_moves_only_when_nothing_can_run_and_then_to_the_next_deadline() {
    let world = World::new(3);
    let (mut a, mut b) = (world.driver(0), world.driver(1));
    a.park(Some(Time(5_000)));
    assert_eq!(world.now(), Time(0), "the other core can run");
    b.park(Some(Time(3_000)));
    assert_eq!(world.now(), Time(3_000));
    assert_eq!(world.next_core(), Some(1));
    b.park(None);
    assert_eq!((world.now(), world.next_core()), (Time(5_000), Some(0)));
    a.park(None);
    assert_eq!(world.next_core(), None, "no core will ever run again");
    assert_eq!(world.now(), Time(5_000));
}

#[test]
fn a_core_that_spins_until_a_time_has_come_gets_there() {
    let (world, mut turns) = (World::new(4), 0);
    let (mut spinner, mut sleeper) = (world.driver(0), world.driver(1));
    while spinner.now() < Time(1_000_000) {
        // The other core rests and is woken in every turn: that alone must not stop time either.
        sleeper.park(Some(Time(1_000_000)));
        sleeper.unparker().unpark();
        turns += 1;
        assert!(turns < 10_000, "time stands still");
    }
    drop(sleeper);
    let later = spinner.now() + Duration::from_millis(10);
    while spinner.now() < later {
        turns += 1;
        assert!(turns < 30_000, "nothing is to come, and yet the clock must go on");
    }
}

#[test]
fn a_core_that_polls_without_ever_resting_gets_its_completion() {
    let (world, mut turns) = (World::new(4), 0);
    let mut driver = world.driver(0);
    let mut out = Vec::new();
    driver.submit(Token(1), Op::Pair);
    while out.is_empty() {
        driver.poll(&mut out);
        turns += 1;
        assert!(turns < 10_000, "time stands still");
    }
}

#[test]
fn every_runnable_core_gets_its_turn() {
    let world = World::new(5);
    let _drivers: Vec<_> = (0..8).map(|core| world.driver(core)).collect();
    let seen: BTreeSet<_> = (0..200).filter_map(|_| world.next_core()).collect();
    assert_eq!(seen.len(), 8);
}

#[test]
fn an_unpark_makes_a_parked_core_runnable() {
    let world = World::new(6);
    let mut driver = world.driver(0);
    driver.park(None);
    assert_eq!(world.next_core(), None);
    driver.unparker().unpark();
    assert_eq!(world.next_core(), Some(0));
    driver.park(None);
    assert_eq!(world.next_core(), None, "the unpark was used up");
}

#[test]
fn another_os_thread_ends_the_wait_for_outside() {
    let world = World::new(7);
    let mut driver = world.driver(0);
    for _ in 0..20 {
        driver.park(None);
        assert_eq!(world.next_core(), None);
        let unparker = driver.unparker();
        let other = spawn_pinned("outside", None, move || unparker.unpark()).unwrap();
        while !world.wait_for_unpark(None) {}
        other.join().unwrap();
        assert_eq!(world.next_core(), Some(0));
    }
    driver.park(None);
    assert!(!world.wait_for_unpark(Some(Duration::from_millis(1))), "no thread sent anything");
}

#[test]
fn a_flush_covers_no_write_that_was_still_under_way_when_it_was_submitted() {
    let mut left_behind = 0;
    for seed in 0..200 {
        let world = World::new(seed);
        let disk = Disk::new(DiskOptions::new(1 << 16));
        world.add_disk("disk", disk.clone());
        let mut driver = world.driver(0);
        let mut out = Vec::new();
        let open = Op::Open { options: Box::new(OpenOptions::new("disk").writable(true)) };
        driver.submit(Token(0), open);
        let file = finish(&mut driver, &mut out, 1).remove(0);
        let Output::File(file) = file.result.unwrap() else { panic!("no file") };
        driver.submit(Token(1), Op::Write { file: file.clone(), offset: 0, buffers: buffer(&[7; 512]) });
        driver.submit(Token(2), Op::Flush { file: file.clone() });
        finish(&mut driver, &mut out, 2);
        left_behind += disk.snapshot().unflushed();
        // Told of the write, a second flush covers it for certain.
        driver.submit(Token(3), Op::Flush { file });
        finish(&mut driver, &mut out, 1);
        assert_eq!(disk.snapshot().unflushed(), 0, "seed {seed}");
    }
    assert!(left_behind > 50, "the first flush usually came too early for the write: {left_behind}");
}

#[test]
fn an_injected_fault_reaches_the_operation_it_is_meant_for() {
    let world = World::new(8);
    let disk = Disk::new(DiskOptions::new(1 << 16));
    world.add_disk("disk", disk.clone());
    let mut driver = world.driver(0);
    let mut out = Vec::new();
    driver.submit(Token(0), Op::Open { options: Box::new(OpenOptions::new("disk").writable(true)) });
    let Output::File(file) = finish(&mut driver, &mut out, 1).remove(0).result.unwrap() else { panic!() };
    disk.inject(Fault::error(Operation::Write, 2));
    for (i, fails) in [false, true, false].into_iter().enumerate() {
        let buffers = buffer(&[1; 512]);
        driver.submit(Token(i as u64), Op::Write { file: file.clone(), offset: 0, buffers });
        let done = finish(&mut driver, &mut out, 1).remove(0);
        assert_eq!(done.result.is_err(), fails);
        assert_eq!(done.op.into_buffers().len(), 512);
    }
    assert_eq!(disk.counters().faults, 1);
}

/// Drives until `count` operations are done.
fn finish(driver: &mut impl Driver, out: &mut Vec<Completion>, count: usize) -> Vec<Completion> {
    while out.len() < count {
        driver.poll(out);
        if out.len() < count {
            driver.park(None);
        }
    }
    std::mem::take(out)
}
