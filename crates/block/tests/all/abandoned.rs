//! A write that was given up never lands on a newer one that was acknowledged.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use spindle_block::{
    Channel, Device, File, FileOptions, IoErrorKind, LaneTable, Offset, Operation, QueuePair, SimDisk,
};
use spindle_engine::sim::{Disk, DiskOptions};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, Thread, random, yield_now};

use crate::common::model::Random;
use crate::common::{HandDevice, block_on_ready, geometry, poll_once};
use crate::modules::{Holding, Pass};

fn filled(blocks: usize, byte: u8) -> IoBuf {
    let mut buffer = IoBuf::zeroed(blocks * 512);
    buffer.fill(byte);
    buffer
}

#[test]
fn what_overlaps_a_write_that_was_given_up_waits_on_any_thread_and_nothing_else_does() {
    let device = Holding::new(100);
    let (one, two) = (LaneTable::default(), LaneTable::default());
    let (here, there) =
        (one.channel(device.clone()).unwrap(), two.channel(Pass::over(device.clone())).unwrap());
    let mut old = Box::pin(here.write(10 * 512, filled(4, 1)));
    assert!(poll_once(old.as_mut()).is_none());
    drop(old);
    assert!(device.state.held_ranges() > 0);
    let mut newer = Box::pin(there.write(13 * 512, filled(1, 2)));
    assert!(poll_once(newer.as_mut()).is_none());
    let mut zeroes = Box::pin(there.write_zeroes(8 * 512, 3 * 512));
    assert!(poll_once(zeroes.as_mut()).is_none());
    let mut same_thread = Box::pin(here.unmap(12 * 512, 512));
    assert!(poll_once(same_thread.as_mut()).is_none());
    assert_eq!(device.held(), [10], "they wait");
    let mut beside = Box::pin(there.write(14 * 512, filled(1, 3)));
    let mut read = Box::pin(there.read(11 * 512, filled(1, 0)));
    let mut flush = Box::pin(there.flush());
    assert!(poll_once(beside.as_mut()).is_none());
    assert!(poll_once(read.as_mut()).is_none());
    assert!(poll_once(flush.as_mut()).is_none());
    assert_eq!(device.held(), [10, 14, 11, 0], "these do not");
    device.complete(10);
    step_all(&[&one, &two]);
    assert_eq!(device.state.held_ranges(), 0);
    let mut held = device.held();
    held.sort_unstable();
    assert_eq!(held, [0, 8, 11, 12, 13, 14]);
}

#[test]
fn a_write_given_up_before_a_device_had_it_never_happens() {
    let (device, hand) = HandDevice::make(geometry(100), 1);
    let table = LaneTable::default();
    let part: Arc<dyn Device> = Offset::new("part", device.clone(), 10, 50).unwrap();
    let channel = table.channel(part).unwrap();
    let mut first = Box::pin(channel.write(0, filled(1, 1)));
    assert!(poll_once(first.as_mut()).is_none());
    let mut waits = Box::pin(channel.write(512, filled(1, 2)));
    assert!(poll_once(waits.as_mut()).is_none());
    drop(waits);
    hand.complete(10, Ok(()));
    assert!(hand.held().is_empty());
    assert_eq!((device.state().unwrap().held_ranges(), table.stats().in_flight), (0, 0));
    poll_once(first.as_mut()).unwrap().0.unwrap();
}

#[test]
fn the_writes_of_a_queue_pair_that_was_dropped_delay_writes_that_repeat_them() {
    let device = Holding::new(100);
    let (one, two) = (LaneTable::default(), LaneTable::default());
    let mut pair = one.queue_pair(&(device.clone() as Arc<dyn Device>)).unwrap();
    for (operation, start) in [(Operation::Write, 1), (Operation::Read, 2), (Operation::Write, 3)] {
        let io = pair.request(operation, start, 1, filled(1, 1));
        pair.submit(io);
    }
    one.step();
    drop(pair);
    let again = two.channel(device.clone()).unwrap();
    let writes = [1u64, 2, 3].map(|start| {
        let mut write = Box::pin(again.write(start * 512, filled(1, 2)));
        assert!(poll_once(write.as_mut()).is_none());
        write
    });
    assert_eq!(device.held(), [1, 2, 3, 2], "nothing waits for a read");
    device.complete(3);
    step_all(&[&one, &two]);
    assert_eq!(device.held(), [1, 2, 2, 3]);
    device.complete(1);
    step_all(&[&one, &two]);
    assert_eq!(device.state.held_ranges(), 0);
    assert_eq!(device.held(), [2, 2, 3, 1]);
    drop(writes);
}

#[test]
fn a_write_of_a_pair_that_ended_before_the_pair_was_dropped_holds_nothing() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    let io = pair.request(Operation::Write, 1, 1, filled(1, 1));
    pair.submit(io);
    table.step();
    hand.complete(1, Ok(()));
    drop(pair);
    assert_eq!(device.state().unwrap().held_ranges(), 0);
}

#[test]
fn who_waits_for_an_older_write_can_be_aborted_and_removed() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let channel = table.channel(device.clone()).unwrap();
    let mut old = Box::pin(channel.write(0, filled(1, 1)));
    assert!(poll_once(old.as_mut()).is_none());
    drop(old);
    let mut newer = Box::pin(channel.write(0, filled(1, 2)));
    assert!(poll_once(newer.as_mut()).is_none());
    newer.abort();
    assert_eq!(poll_once(newer.as_mut()).unwrap().0.unwrap_err().kind, IoErrorKind::Aborted);
    let mut another = Box::pin(channel.write(0, filled(1, 3)));
    assert!(poll_once(another.as_mut()).is_none());
    let removed = device.state().unwrap().remove();
    table.step();
    assert_eq!(poll_once(another.as_mut()).unwrap().0.unwrap_err().kind, IoErrorKind::Removed);
    assert!(!removed.is_over());
    hand.complete(0, Ok(()));
    table.step();
    assert!(removed.is_over());
}

/// Steps tables that send each other messages.
fn step_all(tables: &[&LaneTable]) {
    for table in tables.iter().chain(tables) {
        table.step();
    }
}

/// Gives writes up and repeats them, on one table or on two; how often an older one was found on top.
fn overtaken(seed: u64, ordered: bool) -> usize {
    let mut random = Random(seed);
    let device = SimDisk::new("sim", Disk::new(DiskOptions::new(1 << 16)), seed).unwrap();
    if !ordered {
        device.state().unwrap().leave_out_held_ranges();
    }
    let tables = [LaneTable::default(), LaneTable::default()];
    let channels = [0, 1].map(|n| tables[n].channel(device.clone()).unwrap());
    let run = |future: &mut std::pin::Pin<Box<dyn Future<Output = ()> + '_>>| {
        while poll_once(future.as_mut()).is_none() {
            step_all(&[&tables[0], &tables[1]]);
        }
    };
    let mut overtaken = 0;
    for _ in 0..30 {
        let at = random.below(8) * 512;
        for _ in 0..1 + random.below(3) {
            let mut given_up = Box::pin(channels[random.below(2) as usize].write(at, filled(2, 1)));
            if poll_once(given_up.as_mut()).is_none() && random.below(2) == 0 {
                tables[random.below(2) as usize].step();
            }
        }
        let (writer, reader) = (random.below(2) as usize, random.below(2) as usize);
        let write: std::pin::Pin<Box<dyn Future<Output = ()> + '_>> = match random.below(2) {
            0 => Box::pin(async { channels[writer].write(at, filled(2, 2)).await.0.unwrap() }),
            _ => Box::pin(async { channels[writer].write_zeroes(at, 1024).await.unwrap() }),
        };
        run(&mut { write });
        for _ in 0..random.below(40) {
            step_all(&[&tables[0], &tables[1]]);
        }
        let mut found = 0;
        run(&mut (Box::pin(async {
            let (result, data) = channels[reader].read(at, IoBuf::zeroed(1024)).await;
            result.unwrap();
            found = data.to_vec().iter().filter(|byte| **byte == 1).count();
        }) as std::pin::Pin<Box<dyn Future<Output = ()> + '_>>));
        overtaken += usize::from(found > 0);
    }
    overtaken
}

#[test]
fn in_simulation_no_older_write_lands_on_a_newer_one_and_does_without_the_order() {
    let with: usize = (0..40).map(|seed| overtaken(seed, true)).sum();
    let without: usize = (0..40).map(|seed| overtaken(seed, false)).sum();
    assert_eq!(with, 0);
    assert!(without > 20, "{without}: a test that cannot fail");
}

/// Rounds in which connections under load are cut and their writes repeated on another reactor.
async fn cut_and_repeat(device: Arc<dyn Device>, rounds: u64) {
    const BLOCK: u64 = 4096;
    for round in 0..rounds {
        let thread = Thread::create(&format!("connection {round}"), "[0-1023]").unwrap();
        let (own, submitted) = (device.clone(), Arc::new(AtomicU64::new(0)));
        let (told, by_pair) = (submitted.clone(), round % 2 == 0);
        let connection = thread.spawn(async move || {
            if by_pair {
                let mut pair = QueuePair::open(&own).unwrap();
                for block in 0..16 {
                    let io = pair.request(Operation::Write, block, 1, block_of(1));
                    pair.submit(io);
                }
                pair.reap(|_, _| {});
                told.store(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            let channel = Channel::open_unheld(own).unwrap();
            let mut writes: Vec<_> =
                (0..16).map(|block| Box::pin(channel.write(block * BLOCK, block_of(1)))).collect();
            poll_fn(|cx| {
                for write in &mut writes {
                    let _ = write.as_mut().poll(cx).is_ready();
                }
                Poll::Ready(())
            })
            .await;
            told.store(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        });
        while submitted.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
        connection.abort();
        thread.exit();
        let channel = Channel::open(device.clone()).unwrap();
        if random().is_multiple_of(2) {
            thread.joined().await;
        } else {
            // Its end is seen by the connection's owner before the client is told to come again.
            let _ = connection.await;
        }
        for block in 0..16 {
            channel.write(block * BLOCK, block_of(2)).await.0.unwrap();
        }
        for _ in 0..20 {
            yield_now().await;
        }
        channel.quiesce().await;
        let (result, data) = channel.read(0, IoBuf::zeroed(16 * BLOCK as usize)).await;
        result.unwrap();
        assert!(data.to_vec().iter().all(|byte| *byte == 2), "round {round}: an older write is on top");
    }
}

fn block_of(byte: u8) -> IoBuf {
    let mut buffer = IoBuf::zeroed(4096);
    buffer.fill(byte);
    buffer
}

#[test]
fn writes_of_a_cut_connection_repeated_on_another_reactor_stay_on_every_engine() {
    let folder = tempfile::tempdir().unwrap();
    for (n, kind) in [EngineKind::Auto, EngineKind::Epoll].into_iter().enumerate() {
        let path = folder.path().join(format!("disk{n}"));
        let runtime = Runtime::builder().reactors(2).engine(kind).build().unwrap();
        runtime
            .run(async move || {
                let options = FileOptions::new(&path).writable(true).create(1 << 20).block_size(4096);
                let file = File::open(options).await.unwrap();
                cut_and_repeat(file.clone(), 60).await;
                assert_eq!(file.state().unwrap().held_ranges(), 0);
            })
            .unwrap();
    }
    for seed in 0..10 {
        let disk = Disk::new(DiskOptions { block: 4096, ..DiskOptions::new(1 << 20) });
        let world = spindle_engine::sim::World::new(seed);
        world.add_disk("/disk", disk);
        let runtime =
            Runtime::builder().reactors(2).engine(EngineKind::Sim(seed)).world(world).build().unwrap();
        runtime
            .run(async || {
                let file = File::open(FileOptions::new("/disk").writable(true)).await.unwrap();
                cut_and_repeat(file, 10).await;
            })
            .unwrap();
    }
}

#[test]
fn a_device_without_older_writes_keeps_none_waiting() {
    let table = LaneTable::default();
    let disk: Arc<dyn Device> = SimDisk::immediate("sim", Disk::new(DiskOptions::new(1 << 16))).unwrap();
    let channel = table.channel(disk.clone()).unwrap();
    for block in 0..10 {
        // Ended before it was given up.
        let mut write = Box::pin(channel.write(block * 512, filled(1, 1)));
        assert!(poll_once(write.as_mut()).is_some());
    }
    assert_eq!(disk.state().unwrap().held_ranges(), 0);
    block_on_ready(channel.write(0, filled(1, 2))).0.unwrap();
}
