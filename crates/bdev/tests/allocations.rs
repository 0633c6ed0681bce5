//! Law: once warm, requests through a stack of bdevs allocate nothing, on any core.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../../tests/support/counting_allocator.rs"]
mod counting_allocator;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use counting_allocator::blocks;
use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_bdev::modules::split::{self, SplitSpec};
use spindle_bdev::{Bdev, Registry};
use spindle_block::load::InPieces;
use spindle_block::{Limits, Operation, QueuePair};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, Thread, yield_now};

/// Requests of both threads together.
const REQUESTS: u64 = 1_000_000;

const DEPTH: u64 = 32;

/// Makes the next `requests` requests of a pair: half of them reads, at places that change.
async fn make(pair: &mut QueuePair, requests: u64, at: &mut u64) {
    let mut done = 0;
    while done < requests {
        done += pair.cycle(|mut io, status| {
            status.unwrap();
            *at = (*at + 7) % 4000;
            io.set_start(*at);
            Some(io)
        }) as u64;
        yield_now().await;
    }
}

/// Waits until the users of both cores have come here so often.
async fn meet(counter: &AtomicU64, all: u64) {
    counter.fetch_add(1, Ordering::AcqRel);
    while counter.load(Ordering::Acquire) < all {
        yield_now().await;
    }
}

/// Allocations of this core in its share of the requests. Every fourth request is cut in two. Both begin and end
/// at the same time, as starting and ending a thread allocates.
async fn share(bdev: Bdev, both: Arc<AtomicU64>) -> u64 {
    let desc = bdev.descriptor(spindle_bdev::DescOptions::new().write(true)).unwrap();
    let device = desc.device();
    let (whole, cut) = (device.clone(), InPieces::of(device, 2));
    let mut pairs = [QueuePair::open(&whole).unwrap(), QueuePair::open(&cut).unwrap()];
    for pair in &mut pairs {
        for n in 0..DEPTH {
            let operation = if n % 2 == 0 { Operation::Read } else { Operation::Write };
            let io = pair.request(operation, n, 8, IoBuf::zeroed(8 * 512));
            pair.submit(io);
        }
    }
    let mut at = 0;
    let [whole, cut] = &mut pairs;
    for (rounds, meetings) in [(20, 2), (REQUESTS / 2 / (4 * DEPTH), 4)] {
        let before = blocks().0;
        for _ in 0..rounds {
            make(whole, 3 * DEPTH, &mut at).await;
            make(cut, DEPTH, &mut at).await;
        }
        let allocations = blocks().0 - before;
        meet(&both, meetings).await;
        if meetings == 4 {
            return allocations;
        }
    }
    unreachable!("the second turn returns")
}

#[test]
fn a_million_requests_through_malloc_split_and_passthru_with_limits_on_two_cores_allocate_nothing() {
    let runtime = Runtime::builder().reactors(2).engine(EngineKind::Epoll).watchdog(None).build().unwrap();
    let main = async || {
        let registry = Registry::start().unwrap();
        let spec =
            MallocSpec { name: Some("M0".into()), block_size: 512, num_blocks: 16_384, ..Default::default() };
        malloc::create(&registry, spec).await.unwrap();
        split::create(&registry, SplitSpec { base: "M0".into(), count: 2, size_mib: 0 }).await.unwrap();
        let spec = PassthruSpec { name: "P0".into(), base: "M0p1".into(), uuid: None };
        let top = passthru::create(&registry, spec).await.unwrap().unwrap();
        let limits = Limits { operations: Some(1 << 40), bytes: Some(1 << 60), ..Limits::default() };
        top.disk().device().state().unwrap().set_limits(limits).await;
        let threads: Vec<Thread> = (0..2)
            .map(|core| Thread::create(&format!("user {core}"), &format!("[{core}]")).unwrap())
            .collect();
        let (mut tasks, both) = (Vec::new(), Arc::new(AtomicU64::new(0)));
        for thread in &threads {
            let (thread, bdev, both) = (thread.clone(), top.clone(), both.clone());
            let counted = async move { thread.run(async move || share(bdev, both).await).await.unwrap() };
            tasks.push(spindle_reactor::spawn_local(counted));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), 0);
        }
        threads.iter().for_each(Thread::exit);
        registry.shutdown().await.unwrap();
    };
    runtime.run(main).unwrap();
    drop(std::hint::black_box(Box::new(1)));
    assert!(blocks().0 > 0, "the counter counts");
}
