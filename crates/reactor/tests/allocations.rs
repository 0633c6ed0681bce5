//! Law: once warm, a message allocates nothing and a call one block, there where it runs; counted by the
//! allocator itself for each OS thread, which is to say for each reactor.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../tests/support/counting_allocator.rs"]
mod counting_allocator;

use std::future::poll_fn;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use counting_allocator::Blocks;
use spindle_reactor::*;

/// Messages in flight at most.
const BURST: usize = 200;

static ARRIVED: AtomicUsize = AtomicUsize::new(0);
static SUM: AtomicUsize = AtomicUsize::new(0);
static WAITING: Mutex<Option<Waker>> = Mutex::new(None);

/// One test at a time: they share what is above, and the cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `test` with two threads: both on reactors of their own, or both on one.
fn with_two(reactors: usize, test: impl AsyncFn(&'static [Thread; 2]) + Send + Sync + Clone + 'static) {
    let _alone = alone();
    for kind in [EngineKind::Auto, EngineKind::Epoll] {
        let (runtime, test) =
            (Runtime::builder().reactors(reactors).engine(kind).watchdog(None), test.clone());
        let main = async move || {
            let handle = Handle::current().unwrap();
            let thread = |name: &str| handle.create_thread(name, "[0-1023]").unwrap();
            // The app thread took the first reactor, so these go to the last and to the first.
            let (there, here) = (thread("there"), thread("here"));
            let indices =
                (there.run(async || reactor_index()).await, here.run(async || reactor_index()).await);
            assert_eq!((indices.0.unwrap(), indices.1.unwrap()), (reactors - 1, 0), "placed as expected");
            sleep_a_little().await;
            test(Box::leak(Box::new([here, there]))).await;
        };
        runtime.build().unwrap().run(main).unwrap();
    }
}

/// What the reactor of `thread` has taken and given back so far. Reading it is itself a call, so between two
/// readings there is one call's block.
async fn blocks(thread: &Thread) -> Blocks {
    thread.run(async || counting_allocator::blocks()).await.unwrap()
}

/// What the reactors of this task and of `thread` take and give back for `work`.
async fn cost(thread: &Thread, work: impl AsyncFnOnce()) -> (Blocks, Blocks) {
    let difference = |after: Blocks, before: Blocks| (after.0 - before.0, after.1 - before.1);
    let (there, here) = (blocks(thread).await, counting_allocator::blocks());
    work().await;
    let here = difference(counting_allocator::blocks(), here);
    (here, difference(blocks(thread).await, there))
}

fn arrive(words: &[u32]) {
    SUM.fetch_add(words.iter().sum::<u32>() as usize, Ordering::Relaxed);
    // The last one wakes the waiting task, which checked the count under the same lock.
    if ARRIVED.fetch_sub(1, Ordering::AcqRel) == 1 {
        WAITING.lock().unwrap().take().into_iter().for_each(Waker::wake);
    }
}

/// Waits until all that was sent has arrived.
async fn all_arrived() {
    poll_fn(|cx| {
        let mut waiting = WAITING.lock().unwrap();
        if ARRIVED.load(Ordering::Acquire) == 0 {
            return Poll::Ready(());
        }
        *waiting = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// A message for one of `between` that goes on to the other until it has made `words[0]` hops: it captures
/// 8 bytes and 4 for each word.
fn hop<const WORDS: usize>(between: &'static [Thread; 2], mut words: [u32; WORDS]) {
    if words[0] == 0 {
        return arrive(&words);
    }
    words[0] -= 1;
    let to = &between[words[0] as usize % 2];
    let between = black_box(between);
    to.send_msg(move || hop(between, words)).unwrap();
}

/// Sends `messages` of 8 + 4 * `WORDS` bytes: nearly all in bursts, the others to and fro.
async fn send<const WORDS: usize>(between: &'static [Thread; 2], messages: usize) {
    let hops = messages / 50;
    for _ in 0..(messages - hops) / BURST {
        ARRIVED.store(BURST, Ordering::Release);
        for n in 0..BURST {
            let words = black_box([n as u32; WORDS]);
            between[1].send_msg(move || arrive(black_box((between, words)).1.as_slice())).unwrap();
        }
        all_arrived().await;
    }
    ARRIVED.store(1, Ordering::Release);
    hop(between, black_box([hops as u32; WORDS]));
    all_arrived().await;
}

/// Lets both reactors fall asleep a few times: what a first sleep takes is not counted.
async fn sleep_a_little() {
    for _ in 0..5 {
        sleep(Duration::from_millis(3)).await;
    }
}

/// Has room made everywhere for a whole burst: the receiver is held until all of it is there.
async fn warm_up(between: &'static [Thread; 2]) {
    static LET_GO: AtomicBool = AtomicBool::new(false);
    LET_GO.store(false, Ordering::Release);
    if Handle::current().unwrap().cores().len() > 1 {
        let held = || {
            while !LET_GO.load(Ordering::Acquire) {
                std::hint::spin_loop()
            }
        };
        between[1].send_msg(held).unwrap();
    }
    ARRIVED.store(BURST + 20, Ordering::Release);
    (0..BURST + 20).for_each(|_| between[1].send_msg(|| arrive(&[1])).unwrap());
    LET_GO.store(true, Ordering::Release);
    all_arrived().await;
    send::<8>(between, 50_000).await;
}

#[test]
fn the_counter_counts() {
    let before = counting_allocator::blocks();
    drop(black_box(Box::new(1)));
    assert_eq!(
        (counting_allocator::blocks().0 - before.0, counting_allocator::blocks().1 - before.1),
        (1, 1)
    );
}

#[test]
fn a_million_messages_of_forty_bytes_to_another_core_allocate_nothing() {
    with_two(2, async |between| {
        warm_up(between).await;
        let (here, there) = cost(&between[1], async || send::<8>(between, 1_000_000).await).await;
        assert_eq!((here, there), ((0, 0), (1, 1)), "here, and there but for the reading");
        let (here, there) = cost(&between[1], async || send::<13>(between, 10_000).await).await;
        // Each block is taken where its message is sent; of those that hop, every second one there.
        assert_eq!(here.0 + there.0, 10_000 + 1, "60 bytes are boxed, or the count is blind");
    });
}

#[test]
fn a_million_messages_of_forty_bytes_on_one_core_allocate_nothing() {
    with_two(1, async |between| {
        warm_up(between).await;
        let (here, _) = cost(&between[1], async || send::<8>(between, 1_000_000).await).await;
        assert_eq!(here, (0, 0));
        let (here, _) = cost(&between[1], async || send::<13>(between, 10_000).await).await;
        assert_eq!(here, (10_000, 10_000), "60 bytes are boxed, or the count is blind");
    });
}

/// Calls `thread` `calls` times, one after the other, with results of `N` bytes.
async fn call<const N: usize>(thread: &Thread, calls: usize) {
    for n in 0..calls {
        let result = thread.run(async move || [n as u8; N]).await.unwrap();
        assert_eq!(result[N - 1], n as u8);
    }
}

#[test]
fn a_call_allocates_one_block_where_it_runs_and_gives_it_back_there() {
    with_two(2, async |between| {
        call::<24>(&between[1], 100).await;
        let (here, there) = cost(&between[1], async || call::<24>(&between[1], 1_000).await).await;
        assert_eq!(here, (0, 0), "nothing where the caller waits");
        assert_eq!(there, (1_001, 1_001), "a block for each call, and for the reading");
        let (here, there) = cost(&between[1], async || call::<100>(&between[1], 1_000).await).await;
        assert_eq!((here, there), ((1_000, 2_000), (2_001, 1_001)), "a large result is boxed twice");
    });
}
