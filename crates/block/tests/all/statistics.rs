//! What a device counts of what its lanes did.

use std::sync::Arc;
use std::time::Duration;

use spindle_block::{
    Device, HistogramOptions, IoErrorKind, LaneTable, Operation, OperationStatistics, Statistics,
    StatisticsReset,
};
use spindle_mem::IoBuf;

use crate::common::{HandDevice, geometry, poll_once};
use crate::modules::Pass;

#[test]
fn requests_are_counted_where_they_pass_with_their_bytes_and_times() {
    let (device, hand) = HandDevice::make(geometry(100), 2);
    let pass = Pass::over(device.clone());
    let state = device.state().unwrap().clone();
    let (one, two) = (LaneTable::default(), LaneTable::default());
    let below = two.channel(device).unwrap();
    let _on = state.keep_statistics(true);
    two.step();
    let above = one.channel(pass).unwrap();
    let mut reads = Vec::new();
    for block in 0..3 {
        let mut read = Box::pin(above.read(block * 512, IoBuf::zeroed(512)));
        assert!(poll_once(read.as_mut()).is_none());
        reads.push(read);
    }
    assert_eq!(state.statistics().in_flight, 3, "what waits for room is in it");
    one.advance(Duration::from_micros(5));
    hand.complete(0, Ok(()));
    one.advance(Duration::from_micros(5));
    hand.complete(1, Err(IoErrorKind::Medium));
    hand.complete(2, Ok(()));
    let read = OperationStatistics {
        bytes: 1024,
        operations: 2,
        latency: Duration::from_micros(15),
        longest: Duration::from_micros(10),
        shortest: Some(Duration::from_micros(5)),
    };
    let expected = Statistics { read, ..Statistics::default() };
    assert_eq!(state.statistics(), expected);
    assert_eq!(state.errors().into_iter().collect::<Vec<_>>(), [(IoErrorKind::Medium, 1)]);
    let per_lane = state.lane_statistics();
    assert_eq!(per_lane.len(), 2);
    drop(reads);
    drop(above);
    assert_eq!(state.statistics(), expected, "a lane that is closed leaves its counts");
    let reset = state.reset_statistics(StatisticsReset::Extremes);
    assert!(!reset.is_over());
    two.step();
    assert!(reset.is_over());
    let now = state.statistics().read;
    assert_eq!((now.operations, now.longest, now.shortest), (2, Duration::ZERO, None));
    let _arrives = state.reset_statistics(StatisticsReset::All);
    two.step();
    assert_eq!((state.statistics(), state.errors().len()), (Statistics::default(), 0));
    drop(below);
}

#[test]
fn requests_that_came_before_the_counting_are_not_counted() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let state = device.state().unwrap().clone();
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    let start = |block: u64| {
        let mut write = Box::pin(channel.write(block * 512, IoBuf::zeroed(512)));
        assert!(poll_once(write.as_mut()).is_none());
        write
    };
    let before = start(1);
    let _on = state.keep_statistics(true);
    table.step();
    let after = start(2);
    table.advance(Duration::from_micros(1));
    hand.complete(1, Ok(()));
    hand.complete(2, Ok(()));
    let counted = state.statistics();
    assert_eq!((counted.write.operations, counted.in_flight), (1, 0));
    let _off = state.keep_statistics(false);
    table.step();
    let third = start(3);
    hand.complete(3, Ok(()));
    assert_eq!(state.statistics(), counted, "what was counted stays");
    drop((before, after, third));
}

#[test]
fn a_histogram_counts_the_operations_that_it_is_for() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let state = device.state().unwrap().clone();
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&device).unwrap();
    let options = HistogramOptions { operation: Some(Operation::Write), granularity: 7 };
    let _on = state.keep_histogram(Some(options));
    table.step();
    for (n, operation) in [Operation::Write, Operation::Read, Operation::Write].into_iter().enumerate() {
        let io = pair.request(operation, n as u64, 1, IoBuf::zeroed(512));
        pair.submit(io);
        table.step();
        table.advance(Duration::from_nanos(1000));
        hand.complete(n as u64, Ok(()));
    }
    let histogram = state.histogram().unwrap();
    assert_eq!(histogram.total(), 2);
    let bucket = histogram.counts().iter().position(|&count| count == 2).unwrap();
    assert!(histogram.end_of(bucket) > Duration::from_nanos(1000));
    assert!(histogram.end_of(bucket - 1) <= Duration::from_nanos(1000));
    drop(pair);
    assert_eq!(state.histogram().unwrap().total(), 2, "after the lane closed, too");
    let _off = state.keep_histogram(None);
    assert_eq!(state.histogram(), None);
    let _statistics_are_another_matter: Arc<dyn Device> = device;
}
