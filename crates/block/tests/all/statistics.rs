//! What a device counts of what its lanes did.

use std::sync::Arc;
use std::time::Duration;

use spindle_block::{
    Cx, Device, DeviceState, Geometry, HistogramOptions, Io, IoErrorKind, Lane, LaneCx, LaneId, LaneTable,
    Null, OpenError, Operation, OperationStatistics, Statistics, StatisticsReset, Status, Submit,
};
use spindle_mem::{Buffers, IoBuf};

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
    let failed: u64 = per_lane.iter().flat_map(|(_, _, errors)| errors.values()).sum();
    assert_eq!(failed, 1, "a failed request is its lane's");
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

/// Has its own state; cuts a request into pieces, one that comes back to it and one that does not, and also makes a
/// flush.
struct Busy {
    below: Arc<dyn Device>,
    state: DeviceState,
}

impl Device for Busy {
    fn name(&self) -> &str {
        "busy"
    }
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(BusyLane(cx.open(&self.below)?)))
    }
}

struct BusyLane(LaneId);

impl Lane for BusyLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let own = cx.create(Operation::Flush, 0, 0, Buffers::None);
        cx.forward(self.0, own, [1, 0]);
        let mut split = cx.split(io);
        let piece = cx.child(&mut split, 1);
        cx.forward(self.0, piece, [0, 0]);
        while split.left() > 0 {
            cx.forward_piece(&mut split, self.0, 1);
        }
        cx.join(split);
        Submit::Taken
    }

    fn complete(&mut self, io: Io, [own, _]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        match own {
            1 => drop(cx.finish(io)),
            _ => cx.done(io, status),
        }
    }
}

#[test]
fn what_a_lane_makes_itself_is_counted_below_it_and_not_in_it() {
    let null = Null::new("null", geometry(100));
    let busy = Arc::new(Busy { below: null.clone(), state: DeviceState::new() });
    let table = LaneTable::default();
    let channel = table.channel(busy.clone()).unwrap();
    let (_above, _below) = (busy.state.keep_statistics(true), null.state().unwrap().keep_statistics(true));
    table.step();
    for _ in 0..2 {
        let mut read = Box::pin(channel.read(0, IoBuf::zeroed(4 * 512)));
        poll_once(read.as_mut()).unwrap().0.unwrap();
    }
    let (above, below) = (busy.state.statistics(), null.state().unwrap().statistics());
    assert_eq!((above.read.operations, above.read.bytes, above.in_flight), (2, 4096, 0));
    assert_eq!((below.read.operations, below.read.bytes, below.in_flight), (8, 4096, 0));
}
