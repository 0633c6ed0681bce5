//! The fault model's disk: what a crash, a fault and an observer may and may not do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use spindle_engine::sim::disk::Moment;
use spindle_engine::sim::{Crash, Disk, DiskOptions, Effect, Fault, Image, Operation, Rng, UnmapReads};

const SIZE: u64 = 64 << 10;

#[derive(Debug, Clone)]
enum Step {
    /// Blocks from, count, fill.
    Write(u64, u64, u8),
    Zero(u64, u64),
    Discard(u64, u64),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..128u64, 1..24u64).prop_map(|(at, n)| (at, n.min(128 - at)));
    prop_oneof![
        6 => (range(), 1..=255u8).prop_map(|((at, n), fill)| Step::Write(at, n, fill)),
        1 => range().prop_map(|(at, n)| Step::Zero(at, n)),
        1 => range().prop_map(|(at, n)| Step::Discard(at, n)),
        2 => Just(Step::Flush),
    ]
}

/// For each block: what is durable, and what unflushed writes would make of it.
struct Model {
    durable: Vec<Vec<u8>>,
    pending: Vec<Vec<Vec<u8>>>,
}

impl Model {
    fn newest(&self, block: usize) -> &[u8] {
        self.pending[block].last().unwrap_or(&self.durable[block])
    }
}

fn block_of(fill: u8, step: usize) -> Vec<u8> {
    // Differs for each write even with equal fill, so that no two contents are taken for each other.
    let mut block = vec![fill; 512];
    block[..8].copy_from_slice(&(step as u64).to_le_bytes());
    block
}

fn run(disk: &Disk, steps: &[Step]) -> Model {
    let blocks = (SIZE / 512) as usize;
    let mut model = Model { durable: vec![vec![0; 512]; blocks], pending: vec![Vec::new(); blocks] };
    for (number, step) in steps.iter().enumerate() {
        let (at, count, content) = match *step {
            Step::Write(at, n, fill) => {
                let bytes = block_of(fill, number).repeat(n as usize);
                disk.write(at * 512, &bytes).unwrap();
                (at, n, block_of(fill, number))
            }
            Step::Zero(at, n) => {
                disk.zero_range(at * 512, n * 512).unwrap();
                (at, n, vec![0; 512])
            }
            Step::Discard(at, n) => {
                disk.discard(at * 512, n * 512).unwrap();
                (at, n, vec![0; 512])
            }
            Step::Flush => {
                disk.flush().unwrap();
                for block in 0..blocks {
                    let pending = std::mem::take(&mut model.pending[block]);
                    model.durable[block] =
                        pending.into_iter().last().unwrap_or_else(|| model.durable[block].clone());
                }
                continue;
            }
        };
        for block in at..at + count {
            model.pending[block as usize].push(content.clone());
        }
    }
    model
}

fn blocks(image: &Image) -> Vec<Vec<u8>> {
    image.to_bytes().chunks(512).map(<[u8]>::to_vec).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_flushed_byte_survives_and_each_unit_is_old_or_new(
        steps in proptest::collection::vec(step(), 1..30), seed: u64
    ) {
        let disk = Disk::new(DiskOptions::new(SIZE));
        let model = run(&disk, &steps);
        let mut rng = Rng::new(seed);
        for _ in 0..5 {
            let image = disk.crash(Crash::Random, &mut |n| rng.below(n));
            for (number, block) in blocks(&image).iter().enumerate() {
                let allowed = *block == model.durable[number] || model.pending[number].contains(block);
                prop_assert!(allowed, "block {number} is neither its durable content nor any unflushed one");
            }
        }
        for (number, block) in blocks(&disk.crash(Crash::LoseAll, &mut |_| 0)).iter().enumerate() {
            prop_assert!(*block == model.durable[number]);
        }
        for (number, block) in blocks(&disk.crash(Crash::KeepAll, &mut |_| 0)).iter().enumerate() {
            prop_assert!(block[..] == *model.newest(number));
        }
    }

    #[test]
    fn at_4096_a_unit_is_torn_nowhere_inside(
        pages in proptest::collection::vec((0..16u64, 1..=255u8), 1..20), seed: u64
    ) {
        let options = DiskOptions { block: 4096, atomic_unit: 4096, ..DiskOptions::new(SIZE) };
        let disk = Disk::new(options);
        for (page, fill) in pages {
            disk.write(page * 4096, &[fill; 4096]).unwrap();
        }
        let mut rng = Rng::new(seed);
        for page in disk.crash(Crash::Random, &mut |n| rng.below(n)).to_bytes().chunks(4096) {
            prop_assert!(page.iter().all(|byte| *byte == page[0]), "a torn unit");
        }
    }
}

/// Every image that a crash of `disk` can leave, by trying each sequence of choices.
fn every_crash(disk: &Disk) -> BTreeSet<Vec<u8>> {
    let mut images = BTreeSet::new();
    let mut path: Vec<(usize, usize)> = Vec::new();
    loop {
        let mut at = 0;
        let image = disk.crash(Crash::Random, &mut |n| {
            if at == path.len() {
                path.push((0, n));
            }
            at += 1;
            path[at - 1].0
        });
        images.insert(image.to_bytes());
        while path.last().is_some_and(|(pick, n)| pick + 1 == *n) {
            path.pop();
        }
        match path.last_mut() {
            Some(last) => last.0 += 1,
            None => return images,
        }
    }
}

#[test]
fn every_subset_in_every_order_can_be_what_a_crash_leaves() {
    let disk = Disk::new(DiskOptions::new(4096));
    disk.write(0, &[1; 1024]).unwrap();
    disk.flush().unwrap();
    // Two writes of two units each, overlapping in one: 2 x 3 x 2 outcomes.
    disk.write(0, &[2; 1024]).unwrap();
    disk.write(512, &[3; 1024]).unwrap();
    let seen: BTreeSet<[u8; 3]> =
        every_crash(&disk).iter().map(|bytes| [bytes[0], bytes[512], bytes[1024]]).collect();
    let mut expected = BTreeSet::new();
    for first in [1, 2] {
        for second in [1, 2, 3] {
            expected.extend([[first, second, 0], [first, second, 3]]);
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_snapshot_keeps_its_moment() {
    let disk = Disk::new(DiskOptions::new(SIZE));
    disk.write(0, &[1; 512]).unwrap();
    let before = disk.snapshot();
    disk.flush().unwrap();
    disk.write(0, &[2; 512]).unwrap();
    assert_eq!(before.unflushed(), 1);
    assert_eq!(before.durable().first_difference(&Image::zeroed(SIZE)), None);
    let mut byte = [0];
    before.visible().read(0, &mut byte);
    assert_eq!(byte, [1]);
    let again = Disk::from_image(before.crash(Crash::KeepAll, &mut |_| 0), disk.options());
    let mut block = [0; 512];
    again.read(0, &mut block).unwrap();
    assert_eq!(block, [1; 512]);
}

#[test]
fn without_a_volatile_cache_every_write_is_durable_at_once() {
    let disk = Disk::new(DiskOptions { volatile_cache: false, ..DiskOptions::new(SIZE) });
    disk.write(512, &[9; 512]).unwrap();
    assert_eq!(disk.snapshot().unflushed(), 0);
    let mut bytes = [0; 512];
    disk.crash(Crash::LoseAll, &mut |_| 0).read(512, &mut bytes);
    assert_eq!(bytes, [9; 512]);
}

#[test]
fn the_observer_sees_the_disk_before_and_after_every_change() {
    let disk = Disk::new(DiskOptions::new(SIZE));
    let seen: Arc<Mutex<Vec<(Moment, usize)>>> = Arc::default();
    let log = Arc::clone(&seen);
    disk.observe(move |moment, state| log.lock().unwrap().push((moment, state.unflushed())));
    disk.write(512, &[1; 1024]).unwrap();
    disk.zero_range(0, 512).unwrap();
    disk.discard(4096, 512).unwrap();
    disk.read(0, &mut [0; 512]).unwrap();
    disk.flush().unwrap();
    disk.unobserve();
    disk.write(0, &[1; 512]).unwrap();
    let seen = seen.lock().unwrap();
    let counts: Vec<usize> = seen.iter().map(|(_, unflushed)| *unflushed).collect();
    assert_eq!(counts, [0, 1, 1, 2, 2, 3, 3, 0]);
    let first = Moment { before: true, operation: Operation::Write, offset: 512, length: 1024, faults: 0 };
    assert_eq!(seen[0].0, first);
    assert_eq!(seen[7].0.operation, Operation::Flush);
}

#[test]
fn the_nth_operation_fails_and_changes_nothing() {
    let disk = Disk::new(DiskOptions::new(SIZE));
    disk.inject(Fault::error(Operation::Write, 2));
    disk.inject(Fault { times: u64::MAX, ..Fault::error(Operation::Read, 3) });
    disk.write(0, &[1; 512]).unwrap();
    assert!(disk.write(0, &[2; 512]).is_err());
    disk.write(512, &[3; 512]).unwrap();
    let mut bytes = [0; 512];
    disk.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 512]);
    disk.read(0, &mut bytes).unwrap();
    assert!((0..10).all(|_| disk.read(0, &mut bytes).is_err()));
    disk.clear_faults();
    disk.read(0, &mut bytes).unwrap();
    assert_eq!(disk.counters().faults, 11);
}

#[test]
fn a_torn_error_leaves_each_unit_old_or_new_and_both_happen() {
    let mut changed = BTreeSet::new();
    for seed in 0..50 {
        let disk = Disk::new(DiskOptions { seed, ..DiskOptions::new(SIZE) });
        disk.inject(Fault { effect: Effect::TornError, ..Fault::error(Operation::Write, 1) });
        assert!(disk.write(0, &[1; 4096]).is_err());
        let mut bytes = [0; 4096];
        disk.read(0, &mut bytes).unwrap();
        for unit in bytes.chunks(512) {
            assert!(unit.iter().all(|byte| *byte == unit[0]));
        }
        changed.insert(bytes.chunks(512).filter(|unit| unit[0] == 1).count());
    }
    assert!(changed.len() > 4, "{changed:?}");
}

#[test]
fn a_stale_read_returns_the_old_page_and_a_lost_write_never_happens() {
    let disk = Disk::new(DiskOptions::new(SIZE));
    let read = |disk: &Disk| {
        let mut bytes = [0; 512];
        disk.read(0, &mut bytes).unwrap();
        bytes[0]
    };
    disk.write(0, &[1; 512]).unwrap();
    disk.inject(Fault { effect: Effect::Stale, ..Fault::error(Operation::Read, 2) });
    disk.write(0, &[2; 512]).unwrap();
    assert_eq!([read(&disk), read(&disk), read(&disk)], [2, 1, 2]);
    disk.inject(Fault { effect: Effect::Lost, ..Fault::error(Operation::Write, 1) });
    disk.write(0, &[3; 512]).unwrap();
    assert_eq!(read(&disk), 2);
    disk.inject(Fault { effect: Effect::Lost, ..Fault::error(Operation::Flush, 1) });
    disk.flush().unwrap();
    assert_eq!(disk.snapshot().unflushed(), 2);
}

#[test]
fn after_a_failed_flush_no_later_flush_brings_the_writes_back() {
    let mut survived = BTreeSet::new();
    for seed in 0..60 {
        let disk = Disk::new(DiskOptions { seed, ..DiskOptions::new(SIZE) });
        disk.write(0, &[1; 512]).unwrap();
        disk.inject(Fault::error(Operation::Flush, 1));
        assert!(disk.flush().is_err());
        disk.flush().unwrap();
        let mut block = [0; 512];
        disk.read(0, &mut block).unwrap();
        assert_eq!(block, [1; 512], "reads still see it");
        disk.crash(Crash::LoseAll, &mut |_| 0).read(0, &mut block);
        survived.insert(block[0]);
        for crash in [Crash::KeepAll, Crash::Random] {
            let image = disk.crash(crash, &mut |_| 0);
            assert_eq!(image, *disk.snapshot().durable(), "no crash brings it back either");
        }
    }
    assert_eq!(survived, BTreeSet::from([0, 1]), "durable by luck, or lost for good");

    let keeps = Disk::new(DiskOptions { failed_flush_loses: false, ..DiskOptions::new(SIZE) });
    keeps.write(0, &[1; 512]).unwrap();
    keeps.inject(Fault::error(Operation::Flush, 1));
    assert!(keeps.flush().is_err());
    assert_eq!(keeps.snapshot().unflushed(), 1);
}

#[test]
fn a_discarded_range_reads_as_the_options_say() {
    for (reads, check) in [
        (UnmapReads::Zero, (|byte: u8| byte == 0) as fn(u8) -> bool),
        (UnmapReads::Garbage, |byte: u8| byte != 0 && byte != 1),
    ] {
        let disk = Disk::new(DiskOptions { discard: Some(reads), ..DiskOptions::new(SIZE) });
        disk.write(0, &[1; 16_384]).unwrap();
        disk.discard(512, 8192).unwrap();
        let mut bytes = vec![0; 16_384];
        disk.read(0, &mut bytes).unwrap();
        assert!(bytes[512..8704].iter().all(|byte| check(*byte)), "{reads:?}");
        assert!(bytes[..512].iter().chain(&bytes[8704..]).all(|byte| *byte == 1));
    }
    let without = Disk::new(DiskOptions { discard: None, ..DiskOptions::new(SIZE) });
    assert_eq!(without.discard(0, 512).unwrap_err().kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn what_does_not_fit_the_disk_is_refused() {
    let disk = Disk::new(DiskOptions::new(SIZE));
    for (offset, length) in [(1, 512), (0, 100), (SIZE, 512), (u64::MAX - 511, 512), (SIZE - 512, 1024)] {
        assert!(disk.write(offset, &vec![0; length]).is_err(), "{offset} {length}");
    }
    assert_eq!(disk.counters().writes, 0);
}
