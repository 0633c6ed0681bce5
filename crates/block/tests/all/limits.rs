//! Limits: one account for all users of a device, and requests that wait for it.

use std::sync::Arc;
use std::time::Duration;

use spindle_block::{Channel, Device, IoErrorKind, LaneTable, Limits, Null, Operation, QueuePair};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{EngineKind, Runtime, Thread, now};

use crate::common::{geometry, poll_once};

const MILLISECOND: Duration = Duration::from_millis(1);

fn submit(pair: &mut QueuePair, operation: Operation, blocks: u64, requests: usize) {
    for _ in 0..requests {
        let bytes = if operation.moves_data() { blocks * 512 } else { 0 };
        let io = pair.request(operation, 0, blocks, IoBuf::zeroed(bytes as usize));
        pair.submit(io);
    }
}

/// Requests done in each of the next so many milliseconds.
fn per_millisecond(table: &LaneTable, pair: &mut QueuePair, milliseconds: usize) -> Vec<usize> {
    (0..milliseconds)
        .map(|_| {
            table.advance(MILLISECOND);
            table.step();
            pair.reap(|_, status| status.unwrap())
        })
        .collect()
}

#[test]
fn a_limit_lets_its_number_go_each_millisecond_after_a_run_up_of_one() {
    let null = Null::new("null", geometry(1000));
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&(null.clone() as Arc<dyn Device>)).unwrap();
    let limits = Limits { operations: Some(10_000), ..Limits::default() };
    let _set = null.state().unwrap().set_limits(limits);
    assert_eq!(null.state().unwrap().limits(), limits);
    table.step();
    submit(&mut pair, Operation::Read, 1, 60);
    let first = pair.reap(|_, status| status.unwrap());
    assert_eq!(first, 11, "a millisecond ahead, and the one that owes");
    assert_eq!(per_millisecond(&table, &mut pair, 5), [10, 10, 10, 10, 9]);
    assert_eq!(per_millisecond(&table, &mut pair, 100).iter().sum::<usize>(), 0);
    submit(&mut pair, Operation::Read, 1, 60);
    assert_eq!(pair.reap(|_, _| {}), 11, "what was not used is gone");
}

#[test]
fn each_limit_counts_its_own_and_a_large_request_is_owed_by_later_ones() {
    let null = Null::new("null", geometry(1 << 20));
    let state = null.state().unwrap().clone();
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&(null as Arc<dyn Device>)).unwrap();
    let _set = state.set_limits(Limits { written_bytes: Some(512_000_000), ..Limits::default() });
    table.step();
    // Ten milliseconds' worth: goes, as nothing is owed.
    submit(&mut pair, Operation::Write, 10_000, 1);
    submit(&mut pair, Operation::Write, 1, 1);
    submit(&mut pair, Operation::Read, 10_000, 3);
    submit(&mut pair, Operation::Flush, 0, 1);
    submit(&mut pair, Operation::Unmap, 10_000, 3);
    assert_eq!(pair.reap(|_, status| status.unwrap()), 8, "only writes are limited");
    assert_eq!(per_millisecond(&table, &mut pair, 9), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn the_account_is_the_devices_and_lanes_take_turns() {
    let null = Null::new("null", geometry(1000));
    let state = null.state().unwrap().clone();
    let device: Arc<dyn Device> = null;
    let _set = state.set_limits(Limits { operations: Some(4_000), ..Limits::default() });
    let tables: Vec<LaneTable> = (0..4).map(|_| LaneTable::default()).collect();
    let mut pairs: Vec<QueuePair> = tables.iter().map(|table| table.queue_pair(&device).unwrap()).collect();
    pairs.iter_mut().for_each(|pair| submit(pair, Operation::Read, 1, 200));
    let mut done = [0; 4];
    for _ in 0..100 {
        for (n, table) in tables.iter().enumerate() {
            table.advance(MILLISECOND);
            table.step();
            done[n] += pairs[n].reap(|_, status| status.unwrap());
        }
    }
    let sum: usize = done.iter().sum();
    assert!((400..=410).contains(&sum), "{sum} in 100 ms at four a millisecond");
    assert!(done.iter().all(|one| (80..=120).contains(one)), "{done:?}");
}

#[test]
fn what_waits_for_a_limit_can_be_aborted_frozen_let_go_and_removed() {
    let null = Null::new("null", geometry(1000));
    let state = null.state().unwrap().clone();
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&(null as Arc<dyn Device>)).unwrap();
    let limits = Limits { operations: Some(1), ..Limits::default() };
    let _set = state.set_limits(limits);
    table.step();
    let ids: Vec<_> = (0..6)
        .map(|start| {
            let io = pair.request(Operation::Read, start, 1, IoBuf::zeroed(512));
            let id = io.id();
            pair.submit(io);
            id
        })
        .collect();
    assert_eq!(pair.reap(|io, _| assert_eq!(io.start(), 0)), 1);
    pair.abort(ids[1]);
    pair.abort(ids[3]);
    let mut seen = Vec::new();
    pair.reap(|io, status| seen.push((io.start(), status)));
    assert_eq!(seen, [(1, Err(IoErrorKind::Aborted)), (3, Err(IoErrorKind::Aborted))]);
    let mut freeze = Box::pin(state.freeze());
    assert!(poll_once(freeze.as_mut()).is_none());
    table.step();
    let frozen = poll_once(freeze.as_mut()).expect("what waits in front is not in the lane");
    table.advance(Duration::from_secs(100));
    table.step();
    assert_eq!(pair.reap(|_, _| {}), 0, "frozen");
    drop(frozen);
    table.step();
    let mut starts = Vec::new();
    pair.reap(|io, _| starts.push(io.start()));
    assert_eq!(starts, [2, 4], "one whose turn came while it was frozen, and the one whose turn it is");
    let _none = state.set_limits(Limits::default());
    table.step();
    assert_eq!(pair.reap(|_, status| status.unwrap()), 1, "no limit, no request waits");
    let _set = state.set_limits(limits);
    table.step();
    submit(&mut pair, Operation::Read, 1, 3);
    table.step();
    pair.reap(|_, _| {});
    let removed = state.remove();
    table.step();
    assert!(removed.is_over());
    assert!(pair.reap(|_, status| assert_eq!(status, Err(IoErrorKind::Removed))) >= 2);
    assert_eq!(table.stats().in_flight, 0);
}

#[test]
fn a_lane_that_waits_for_a_limit_wakes_its_thread() {
    for seed in [1, 2, 3] {
        let runtime = Runtime::builder().reactors(2).engine(EngineKind::Sim(seed)).build().unwrap();
        runtime
            .run(async || {
                let null = Null::new("null", geometry(1000));
                null.state()
                    .unwrap()
                    .set_limits(Limits { operations: Some(1000), ..Limits::default() })
                    .await;
                let other = null.clone();
                let thread = Thread::create("other", "[0-1023]").unwrap();
                let begin = now();
                let there = thread.spawn(async move || reads(other, 50).await);
                reads(null, 50).await;
                there.await.unwrap();
                let took = now().since(begin);
                assert!(
                    (97..=110).contains(&took.as_millis()),
                    "100 reads at 1000/s took {took:?} of virtual time"
                );
            })
            .unwrap();
    }
}

async fn reads(device: Arc<Null>, count: u32) {
    let channel = Channel::open(device).unwrap();
    for _ in 0..count {
        channel.read(0, Buffers::from(IoBuf::zeroed(512))).await.0.unwrap();
    }
}
