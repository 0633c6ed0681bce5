//! The end of a stack at every point of a scenario: its base is removed, its user closes, the user's thread exits, or
//! the runtime stops, so many turns after the user began. Every request ends once, and nothing is left.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use spindle_bdev::modules::error::{self, Effect, Injection, Target};
use spindle_bdev::{Bdev, BdevError, Desc, DescOptions, Registry};
use spindle_block::{Channel, Device, LaneTable, Limits, Operation, QueuePair, TableStats};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, spawn_local, yield_now};

use super::model::{BLOCK, Random};
use super::{Stack, build};
use crate::support::thread;

/// Requests of the user's queue pair, and of its channel.
const PAIRED: u64 = 16;
const AWAITED: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    BaseRemoved,
    Closed,
    ThreadExits,
    RuntimeStops,
}

/// What the user tells the app thread.
#[derive(Default)]
struct Signs {
    began: AtomicBool,
    close: AtomicBool,
}

struct User {
    pair: QueuePair,
    channel: Rc<Channel>,
    times: [u32; PAIRED as usize],
    random: Random,
    /// Closed last.
    _desc: Desc,
}

/// How the requests ended.
struct Outcome {
    times: [u32; PAIRED as usize],
    awaited: u64,
    stats: TableStats,
}

impl User {
    fn submit(&mut self, blocks: u64) {
        for tag in 0..PAIRED {
            let count = 1 + self.random.below(12);
            let start = self.random.below(blocks - count);
            let operation = [Operation::Read, Operation::Write, Operation::Read, Operation::Flush]
                [self.random.below(4) as usize];
            let (start, count) = if operation == Operation::Flush { (0, 0) } else { (start, count) };
            let mut io = self.pair.request(operation, start, count, IoBuf::zeroed(count as usize * BLOCK));
            io.set_tag(tag);
            self.pair.submit(io);
        }
    }

    /// One operation that the layer makes of several: by number.
    async fn made(channel: Rc<Channel>, which: u64) {
        let at = 16 * BLOCK as u64;
        // Whether it succeeds is told by other tests; here it must end.
        match which {
            0 => drop(channel.write_zeroes(at, at).await),
            1 => drop(channel.compare_and_write(at, IoBuf::zeroed(6 * BLOCK)).await),
            2 => drop(channel.reset().await),
            _ => drop(channel.copy(0, at, at).await),
        }
    }
}

async fn used(bdev: Bdev, seed: u64, signs: Arc<Signs>) -> Result<Outcome, BdevError> {
    let desc = bdev.descriptor(DescOptions::new().write(true))?;
    let (pair, channel) = (desc.queue_pair()?, Rc::new(desc.channel()?));
    let mut user = User { pair, channel, times: Default::default(), random: Random(seed), _desc: desc };
    user.submit(bdev.num_blocks());
    let ended = Rc::new(Cell::new(0));
    let tasks: Vec<_> = (0..AWAITED)
        .map(|which| {
            let (channel, ended) = (user.channel.clone(), ended.clone());
            spawn_local(async move {
                User::made(channel, which).await;
                ended.set(ended.get() + 1);
            })
        })
        .collect();
    signs.began.store(true, Ordering::Release);
    // Bounded, so that a request that is lost fails the test instead of holding it.
    for _ in 0..100_000 {
        let over = user.pair.outstanding() == 0 && ended.get() == AWAITED;
        if over || signs.close.load(Ordering::Acquire) {
            break;
        }
        user.pair.reap(|io, _| user.times[io.tag() as usize] += 1);
        yield_now().await;
    }
    user.pair.reap(|io, _| user.times[io.tag() as usize] += 1);
    tasks.iter().for_each(|task| task.abort());
    for task in tasks {
        let _ = task.await;
    }
    let times = user.times;
    drop(user);
    let table = LaneTable::current().unwrap();
    // What was given up ends too, and with it the lanes.
    for _ in 0..10_000 {
        if table.stats().lanes == 0 {
            break;
        }
        spindle_reactor::sleep(Duration::from_micros(50)).await;
    }
    Ok(Outcome { times, awaited: ended.get(), stats: table.stats() })
}

/// Keeps some requests waiting, wherever the stack can.
async fn hinder(registry: &Registry, stack: &Stack, random: &mut Random) {
    for name in &stack.errors {
        let injection = Injection { effect: Effect::Pending, count: 2, queue_depth: 0 };
        error::inject(registry, name, Target::All, injection).unwrap();
    }
    let limited = &stack.all[random.below(stack.all.len() as u64) as usize];
    let limits = Limits { operations: Some(30_000), ..Limits::default() };
    limited.disk().device().state().unwrap().set_limits(limits).await;
}

async fn scenario(end: End, point: u64, seed: u64, devices: Arc<Mutex<Vec<Weak<dyn Device>>>>) {
    let registry = Registry::start().unwrap();
    let mut random = Random(seed);
    let stack = build(&registry, &mut random, None).await;
    devices.lock().unwrap().extend(stack.all.iter().map(|bdev| Arc::downgrade(&bdev.disk().device())));
    hinder(&registry, &stack, &mut random).await;
    let frozen = match random.below(3) {
        0 => Some(stack.all[random.below(stack.all.len() as u64) as usize].disk().device()),
        _ => None,
    };
    let frozen = match frozen {
        Some(device) => Some(device.state().unwrap().freeze().await),
        None => None,
    };
    let (user, signs) = (thread("user"), Arc::new(Signs::default()));
    let outcome = {
        let (there, bdev, signs) = (user.clone(), stack.top.clone(), signs.clone());
        spawn_local(async move { there.run(async move || used(bdev, seed, signs).await).await })
    };
    while !signs.began.load(Ordering::Acquire) && !outcome.is_finished() {
        yield_now().await;
    }
    for _ in 0..point {
        yield_now().await;
    }
    let mut removal = None;
    match end {
        End::RuntimeStops => return,
        End::BaseRemoved => {
            let (registry, base) = (registry.clone(), stack.all[0].clone());
            removal = Some(spawn_local(async move { registry.unregister(&base).await }));
        }
        End::Closed => signs.close.store(true, Ordering::Release),
        End::ThreadExits => user.exit(),
    }
    for _ in 0..random.below(20) {
        yield_now().await;
    }
    drop(frozen);
    match removal {
        Some(removal) => removal.await.unwrap().unwrap(),
        None => super::calm(&registry, &stack).await,
    }
    let outcome = outcome.await.unwrap().unwrap().unwrap();
    let what = format!("{end:?} at {point}, seed {seed}");
    let left = outcome.stats;
    assert_eq!((left.lanes, left.in_flight, left.timers), (0, 0, 0), "{what}: {left:?}");
    assert!(outcome.times.iter().all(|times| *times <= 1), "{what}: {:?}", outcome.times);
    if end != End::Closed {
        assert_eq!((outcome.times, outcome.awaited), ([1; PAIRED as usize], AWAITED), "{what}");
    }
    user.exit();
    user.joined().await;
    registry.shutdown().await.unwrap();
    assert!(registry.bdevs().is_empty());
}

fn at_every_point(end: End) {
    for point in 0..80 {
        let devices: Arc<Mutex<Vec<Weak<dyn Device>>>> = Arc::default();
        let seed = 100 * point + end as u64;
        let runtime = Runtime::builder().reactors(2).engine(EngineKind::Sim(seed)).build().unwrap();
        let seen = devices.clone();
        runtime.run(async move || scenario(end, point, seed, seen).await).unwrap();
        let left: Vec<String> =
            devices.lock().unwrap().iter().filter_map(|one| Some(one.upgrade()?.name().to_owned())).collect();
        assert!(left.is_empty(), "{end:?} at {point}: {left:?} are left in memory");
    }
}

#[test]
fn a_base_removed_at_any_point_ends_every_request_once_and_leaves_nothing() {
    at_every_point(End::BaseRemoved);
}

#[test]
fn a_user_that_closes_at_any_point_leaves_nothing() {
    at_every_point(End::Closed);
}

#[test]
fn a_thread_that_exits_at_any_point_ends_every_request_once_and_leaves_nothing() {
    at_every_point(End::ThreadExits);
}

#[test]
fn a_runtime_that_stops_at_any_point_leaves_nothing() {
    at_every_point(End::RuntimeStops);
}
