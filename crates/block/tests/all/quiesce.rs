//! Quiescing waits for every request in a lane, from any sender.

use std::sync::Arc;

use spindle_block::{Device, LaneTable, Offset, Operation};
use spindle_mem::IoBuf;

use crate::common::{HandDevice, geometry, poll_once};
use crate::modules::Pass;

#[test]
fn quiesce_waits_for_a_request_of_a_queue_pair() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let channel = table.channel(device.clone()).unwrap();
    let mut pair = table.queue_pair(&device).unwrap();
    let io = pair.request(Operation::Write, 3, 1, IoBuf::zeroed(512));
    pair.submit(io);
    pair.reap(|_, _| panic!("not yet"));
    let mut quiesced = Box::pin(channel.quiesce());
    assert!(poll_once(quiesced.as_mut()).is_none());
    hand.complete(3, Ok(()));
    assert!(poll_once(quiesced.as_mut()).is_some(), "ended, though not reaped");
}

#[test]
fn quiesce_waits_for_requests_of_all_layers_above_and_for_those_that_a_dropped_pair_left() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let part: Arc<dyn Device> = Offset::new("part", Pass::over(device.clone()), 8, 16).unwrap();
    let base = table.channel(device).unwrap();
    let top = table.channel(part.clone()).unwrap();
    let mut pair = table.queue_pair(&part).unwrap();
    let io = pair.request(Operation::Read, 1, 1, IoBuf::zeroed(512));
    pair.submit(io);
    table.step();
    drop(pair);
    let mut write = Box::pin(top.write(0, IoBuf::zeroed(512)));
    assert!(poll_once(write.as_mut()).is_none());
    let mut below = Box::pin(base.quiesce());
    let mut above = Box::pin(top.quiesce());
    assert!(poll_once(below.as_mut()).is_none());
    assert!(poll_once(above.as_mut()).is_none());
    let mut later = Box::pin(top.write(512 * 3, IoBuf::zeroed(512)));
    assert!(poll_once(later.as_mut()).is_none());
    hand.complete(8, Ok(()));
    assert!(poll_once(below.as_mut()).is_none(), "the pair is gone, its request is not");
    hand.complete(9, Ok(()));
    assert!(poll_once(below.as_mut()).is_some(), "what came later is not waited for");
    assert!(poll_once(above.as_mut()).is_some());
}
