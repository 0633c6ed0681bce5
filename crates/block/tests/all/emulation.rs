//! What a device's lanes cannot do and the layer does by reads and writes; resets on all threads.

use std::sync::Arc;

use spindle_block::{
    Busy, Channel, Cx, Device, DeviceState, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, LaneTable,
    Malloc, OpenError, Operation, Submit,
};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{EngineKind, Runtime, Thread};

use crate::common::{block_on_ready, poll_once};
use crate::modules::Holding;

/// A device that reads and writes, and does nothing else.
struct Plain {
    below: Arc<dyn Device>,
    state: DeviceState,
    max_transfer: u32,
    /// Passes each request on in the next turn only.
    late: bool,
}

impl Plain {
    fn over(below: Arc<dyn Device>, max_transfer: u32) -> Arc<dyn Device> {
        Arc::new(Plain { below, state: DeviceState::new(), max_transfer, late: false })
    }

    fn late(below: Arc<dyn Device>) -> Arc<dyn Device> {
        Arc::new(Plain { below, state: DeviceState::new(), max_transfer: u32::MAX, late: true })
    }
}

impl Device for Plain {
    fn name(&self) -> &str {
        "plain"
    }
    fn geometry(&self) -> Geometry {
        self.below.geometry().with_max_transfer(self.max_transfer).unwrap()
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn supports(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Read | Operation::Write)
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(PlainLane { below: cx.open(&self.below)?, late: self.late, kept: Vec::new() }))
    }
}

struct PlainLane {
    below: LaneId,
    late: bool,
    kept: Vec<Io>,
}

impl Lane for PlainLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        match io.operation() {
            Operation::Read | Operation::Write if self.late => {
                self.kept.push(io);
                cx.poll_soon();
            }
            Operation::Read | Operation::Write => cx.forward(self.below, io, [0, 0]),
            _ => cx.done(io, Err(IoErrorKind::Unsupported)),
        }
        Submit::Taken
    }
    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        self.kept.drain(..).for_each(|io| cx.forward(self.below, io, [0, 0]));
        Busy::Yes
    }
}

fn kind(result: Result<(), spindle_block::IoError>) -> Result<(), IoErrorKind> {
    result.map_err(|error| error.kind)
}

fn filled(channel: &Channel, byte: u8) {
    let len = channel.geometry().bytes() as usize;
    let data: Vec<u8> = (0..len).map(|at| (at >> 9) as u8 ^ byte).collect();
    block_on_ready(channel.write(0, IoBuf::copy_from(&data))).0.unwrap();
}

fn all(channel: &Channel) -> Vec<u8> {
    let len = channel.geometry().bytes() as usize;
    let (read, data) = block_on_ready(channel.read(0, IoBuf::zeroed(len)));
    read.unwrap();
    data.to_vec()
}

#[test]
fn zeroes_comparisons_and_copies_come_to_the_same_as_on_a_device_that_does_them() {
    for (blocks, max_transfer) in [(64, u32::MAX), (64, 3), (1024, 256), (1024, u32::MAX)] {
        let table = LaneTable::default();
        let own = table.channel(Malloc::new("own", 512, blocks).unwrap()).unwrap();
        let plain = Plain::over(Malloc::new("below", 512, blocks).unwrap(), max_transfer);
        let emulated = table.channel(plain).unwrap();
        let (len, some) = (blocks * 512, blocks * 512 / 2 - 512);
        for (round, (to, from)) in [(0, len / 2), (512, 1024), (1024, 512), (0, 0)].into_iter().enumerate() {
            for channel in [&own, &emulated] {
                filled(channel, round as u8);
                block_on_ready(channel.write_zeroes(1024 * round as u64, some)).unwrap();
                block_on_ready(channel.copy(to, from, some)).unwrap();
            }
            assert!(all(&own) == all(&emulated), "{blocks} blocks, from {from} to {to}");
        }
        let data = all(&own);
        block_on_ready(emulated.compare(512, IoBuf::copy_from(&data[512..]))).0.unwrap();
        for wrong in [512, 5000, data.len() - 1] {
            let mut other = data[512..].to_vec();
            other[wrong - 512] ^= 4;
            let found = block_on_ready(emulated.compare(512, IoBuf::copy_from(&other))).0;
            assert_eq!(kind(found), Err(IoErrorKind::Miscompare { offset: wrong as u32 - 512 }));
        }
        // What is refused for its range is refused as ever.
        assert_eq!(kind(block_on_ready(emulated.copy(0, len - 512, 1024))), Err(IoErrorKind::OutOfRange));
        emulated.set_read_only();
        assert_eq!(kind(block_on_ready(emulated.write_zeroes(0, 512))), Err(IoErrorKind::ReadOnly));
    }
}

#[test]
fn a_queue_pair_gets_what_its_device_lacks_too_and_closes_its_lane_with_it() {
    let table = LaneTable::default();
    let plain = Plain::over(Malloc::new("below", 512, 64).unwrap(), u32::MAX);
    let mut pair = table.queue_pair(&plain).unwrap();
    for operation in [Operation::Compare, Operation::WriteZeroes, Operation::Copy] {
        let bytes = if operation.moves_data() { 1024 } else { 0 };
        let buffers: Buffers = if bytes > 0 { IoBuf::zeroed(bytes).into() } else { Buffers::None };
        let io = pair.request(operation, 4, 2, buffers);
        pair.submit(io);
        assert_eq!(pair.reap(|io, status| assert!(status.is_ok() && io.buffers().len() == bytes)), 1);
    }
    let unmap = pair.request(Operation::Unmap, 0, 1, Buffers::None);
    pair.submit(unmap);
    assert_eq!(pair.reap(|_, status| assert_eq!(status, Err(IoErrorKind::Unsupported))), 1);
    drop(pair);
    table.step();
    assert_eq!((table.stats().lanes, table.stats().in_flight), (0, 0));
}

#[test]
fn nothing_comes_between_comparing_and_writing_on_whatever_thread() {
    const EACH: u64 = 60;
    for seed in 1..=10 {
        let runtime = Runtime::builder().reactors(3).engine(EngineKind::Sim(seed)).build().unwrap();
        let story = async || {
            let plain = Plain::late(Malloc::new("below", 512, 64).unwrap());
            let mut tasks = Vec::new();
            let mut threads = Vec::new();
            for number in 0..3 {
                let thread = Thread::create(&format!("adder {number}"), "[0-1023]").unwrap();
                let device = plain.clone();
                threads.push(thread.clone());
                // At the same time: each is a task here.
                let adds = async move { thread.run(async move || add(device, EACH).await).await.unwrap() };
                tasks.push(spindle_reactor::spawn_local(adds));
            }
            for task in tasks {
                task.await.unwrap();
            }
            let channel = Channel::open(plain.clone()).unwrap();
            let (read, data) = channel.read(0, IoBuf::zeroed(512)).await;
            read.unwrap();
            assert_eq!(data.to_vec()[..8], (3 * EACH).to_le_bytes());
            threads.iter().for_each(Thread::exit);
        };
        runtime.run(story).unwrap();
    }
}

/// Adds one to the number in block 0, so many times, and writes to other blocks meanwhile.
async fn add(device: Arc<dyn Device>, times: u64) {
    let channel = Channel::open(device).unwrap();
    let mut done = 0;
    while done < times {
        let (read, data) = channel.read(0, IoBuf::zeroed(512)).await;
        read.unwrap();
        let before = data.to_vec();
        let number = u64::from_le_bytes(before[..8].try_into().unwrap());
        let mut after = before.clone();
        after[..8].copy_from_slice(&(number + 1).to_le_bytes());
        let both = IoBuf::copy_from(&[before, after].concat());
        match kind(channel.compare_and_write(0, both).await.0) {
            Ok(()) => done += 1,
            Err(IoErrorKind::Miscompare { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        channel.write(512, IoBuf::zeroed(512)).await.0.unwrap();
    }
}

#[test]
fn a_reset_ends_when_the_device_is_quiet_on_all_threads_and_what_comes_meanwhile_waits() {
    let holding = Holding::new(64);
    let device: Arc<dyn Device> = holding.clone();
    let (here, there) = (LaneTable::default(), LaneTable::default());
    let (ours, theirs) = (here.channel(device.clone()).unwrap(), there.channel(device).unwrap());
    let mut before = Box::pin(theirs.read(512, IoBuf::zeroed(512)));
    assert!(poll_once(before.as_mut()).is_none());
    let mut reset = Box::pin(ours.reset());
    let mut after = Box::pin(ours.read(1024, IoBuf::zeroed(512)));
    let step = || {
        for _ in 0..8 {
            here.step();
            there.step();
        }
    };
    assert!(poll_once(reset.as_mut()).is_none());
    step();
    assert!(poll_once(reset.as_mut()).is_none() && poll_once(after.as_mut()).is_none());
    step();
    assert_eq!(holding.held(), [1], "a request after the reset waits before the device");
    holding.complete(1);
    step();
    poll_once(before.as_mut()).unwrap().0.unwrap();
    // The device has the reset itself now, and nothing else.
    assert_eq!(holding.held(), [0]);
    holding.complete(0);
    step();
    poll_once(reset.as_mut()).unwrap().unwrap();
    step();
    assert_eq!(holding.held(), [2]);
    holding.complete(2);
    step();
    poll_once(after.as_mut()).unwrap().0.unwrap();
}

#[test]
fn an_emulated_operation_that_is_aborted_given_up_or_loses_its_device_ends_and_lets_others_go() {
    for end in 0..3 {
        let holding = Holding::new(64);
        let plain = Plain::over(holding.clone(), u32::MAX);
        let table = LaneTable::default();
        let channel = table.channel(plain.clone()).unwrap();
        let step = || {
            for _ in 0..8 {
                table.step();
            }
        };
        let mut both = Box::pin(channel.compare_and_write(0, IoBuf::zeroed(1024)));
        assert!(poll_once(both.as_mut()).is_none());
        step();
        assert_eq!(holding.held(), [0]);
        let mut other = Box::pin(channel.write(0, IoBuf::zeroed(512)));
        assert!(poll_once(other.as_mut()).is_none());
        step();
        assert_eq!(holding.held(), [0], "a write of the same block waits");
        match end {
            0 => both.abort(),
            1 => drop(std::mem::replace(&mut both, Box::pin(channel.compare_and_write(0, IoBuf::zeroed(1))))),
            _ => drop(plain.state().unwrap().remove()),
        }
        step();
        if end != 0 {
            // An abort has ended what the device held.
            holding.complete(0);
        }
        step();
        match end {
            0 => {
                assert_eq!(kind(poll_once(both.as_mut()).unwrap().0), Err(IoErrorKind::Aborted));
                assert_eq!(holding.held(), [0], "the write goes on");
            }
            1 => assert_eq!(holding.held(), [0]),
            _ => {
                assert_eq!(kind(poll_once(both.as_mut()).unwrap().0), Err(IoErrorKind::Removed));
                assert_eq!(kind(poll_once(other.as_mut()).unwrap().0), Err(IoErrorKind::Removed));
                continue;
            }
        }
        holding.complete(0);
        step();
        poll_once(other.as_mut()).unwrap().0.unwrap();
    }
}

#[test]
fn a_compare_and_write_holds_up_changes_of_its_blocks_on_all_threads_and_nothing_else() {
    let holding = Holding::new(64);
    let plain = Plain::over(holding.clone(), u32::MAX);
    let (here, there) = (LaneTable::default(), LaneTable::default());
    let (ours, theirs) = (here.channel(plain.clone()).unwrap(), there.channel(plain.clone()).unwrap());
    let step = || {
        for _ in 0..8 {
            here.step();
            there.step();
        }
    };
    let mut under_way = Box::pin(theirs.write(0, IoBuf::zeroed(512)));
    assert!(poll_once(under_way.as_mut()).is_none());
    let mut both = Box::pin(ours.compare_and_write(0, IoBuf::zeroed(2048)));
    assert!(poll_once(both.as_mut()).is_none());
    step();
    assert_eq!(holding.held(), [0], "it waits for a change that is in the device already");
    let mut same = Box::pin(theirs.write(512, IoBuf::zeroed(1024)));
    let mut other = Box::pin(theirs.write(1024, IoBuf::zeroed(512)));
    let mut read = Box::pin(ours.read(512, IoBuf::zeroed(512)));
    let mut next = Box::pin(ours.compare_and_write(4 * 512, IoBuf::zeroed(1024)));
    assert!(poll_once(same.as_mut()).is_none() && poll_once(other.as_mut()).is_none());
    assert!(poll_once(read.as_mut()).is_none() && poll_once(next.as_mut()).is_none());
    step();
    assert_eq!(
        holding.held(),
        [0, 2, 1],
        "a write of other blocks and a read go on, one of its blocks waits"
    );
    [0, 1, 2].iter().for_each(|start| holding.complete(*start));
    step();
    poll_once(under_way.as_mut()).unwrap().0.unwrap();
    poll_once(read.as_mut()).unwrap().0.unwrap();
    poll_once(other.as_mut()).unwrap().0.unwrap();
    let mut held = holding.held();
    held.sort();
    assert_eq!(held, [0, 4], "two of them on different blocks run at the same time");
    // Each reads, then writes.
    for _ in 0..2 {
        [0, 4].iter().for_each(|start| holding.complete(*start));
        step();
    }
    poll_once(both.as_mut()).unwrap().0.unwrap();
    poll_once(next.as_mut()).unwrap().0.unwrap();
    assert_eq!(holding.held(), [1], "the write that waited goes on");
    holding.complete(1);
    step();
    poll_once(same.as_mut()).unwrap().0.unwrap();
    assert_eq!(plain.state().unwrap().held_ranges(), 0);
}

#[test]
fn a_compare_and_write_does_not_wait_for_what_only_waits_in_front_of_the_device() {
    let holding = Holding::new(64);
    let plain = Plain::over(holding.clone(), u32::MAX);
    let table = LaneTable::default();
    let channel = table.channel(plain.clone()).unwrap();
    let step = || {
        for _ in 0..8 {
            table.step();
        }
    };
    // Two of the same blocks: the second waits for the first; the write behind waits for both.
    let mut first = Box::pin(channel.compare_and_write(0, IoBuf::zeroed(1024)));
    let mut second = Box::pin(channel.compare_and_write(0, IoBuf::zeroed(1024)));
    let mut write = Box::pin(channel.write(0, IoBuf::zeroed(512)));
    assert!(poll_once(first.as_mut()).is_none() && poll_once(second.as_mut()).is_none());
    assert!(poll_once(write.as_mut()).is_none());
    step();
    for left in (0..5).rev() {
        assert_eq!(holding.held(), [0], "one at a time");
        holding.complete(0);
        step();
        assert_eq!(left == 0, holding.held().is_empty());
    }
    poll_once(first.as_mut()).unwrap().0.unwrap();
    poll_once(second.as_mut()).unwrap().0.unwrap();
    poll_once(write.as_mut()).unwrap().0.unwrap();
}

#[test]
fn a_reset_succeeds_where_no_lane_has_anything_to_reset() {
    for device in
        [Plain::over(Malloc::new("below", 512, 64).unwrap(), u32::MAX), Malloc::new("own", 512, 64).unwrap()]
    {
        let table = LaneTable::default();
        let channel = table.channel(device).unwrap();
        let mut reset = Box::pin(channel.reset());
        let ended = (0..20).find_map(|_| {
            let ended = poll_once(reset.as_mut());
            table.step();
            ended
        });
        ended.expect("it ends").unwrap();
    }
}
