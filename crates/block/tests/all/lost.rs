//! What a lane loses, its caller does not wait for: the request ends with an error.

use std::sync::Arc;

use spindle_block::{
    Cx, Device, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, LaneTable, OpenError, Operation, Status,
    Submit,
};
use spindle_mem::{Buffers, IoBuf};

use crate::common::{HandDevice, block_on_ready, geometry, poll_once};
use crate::modules::Pass;

type Step = fn(Io, LaneId, &mut Cx<'_>);

/// Does with each request that comes, and with each that comes back, what a test says.
#[derive(Clone)]
struct Careless {
    below: Arc<dyn Device>,
    submit: Step,
    complete: Step,
}

impl Careless {
    fn over(below: Arc<dyn Device>, submit: Step, complete: Step) -> Arc<dyn Device> {
        Arc::new(Careless { below, submit, complete })
    }
}

impl Device for Careless {
    fn name(&self) -> &str {
        "careless"
    }
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let below = cx.open(&self.below)?;
        Ok(Box::new(CarelessLane { below, device: (*self).clone() }))
    }
}

struct CarelessLane {
    below: LaneId,
    device: Careless,
}

impl Lane for CarelessLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        (self.device.submit)(io, self.below, cx);
        Submit::Taken
    }
    fn complete(&mut self, mut io: Io, saved: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        io.set_tag(saved[0]);
        match status {
            Ok(()) => (self.device.complete)(io, self.below, cx),
            Err(_) => cx.done(io, status),
        }
    }
}

fn done(io: Io, _below: LaneId, cx: &mut Cx<'_>) {
    cx.done(io, Ok(()));
}

fn forward(io: Io, below: LaneId, cx: &mut Cx<'_>) {
    cx.forward(below, io, [0, 0]);
}

fn finish(io: Io, _below: LaneId, cx: &mut Cx<'_>) {
    assert!(cx.finish(io).is_empty(), "the buffers are the caller's");
}

/// The data of a request of four blocks, in one buffer and in a list.
fn buffers() -> [Buffers; 2] {
    let filled = |blocks: usize, byte: u8| {
        let mut buffer = IoBuf::zeroed(blocks * 512);
        buffer.fill(byte);
        buffer
    };
    [filled(4, 7).into(), Buffers::from(vec![filled(1, 7), filled(3, 7)])]
}

/// Writes to a device on one that holds each piece until it is told to end it, and sees how the write ends.
#[track_caller]
fn ends_as_lost(submit: Step, complete: Step) {
    for data in buffers() {
        let (below, hand) = HandDevice::make(geometry(100), 8);
        let table = LaneTable::default();
        // Layers above it pass the error on.
        let channel = table.channel(Pass::over(Careless::over(Pass::over(below), submit, complete))).unwrap();
        let parts = data.parts().len();
        let mut write = Box::pin(channel.write(8 * 512, data));
        let mut ended = poll_once(write.as_mut());
        // The latest first: their memory is put back in order.
        while let Some(piece) = hand.held().pop() {
            assert!(ended.is_none(), "a piece is still out, with the caller's memory");
            hand.complete(piece, Ok(()));
            ended = poll_once(write.as_mut());
        }
        let (result, back) = ended.expect("no caller waits for ever");
        let error = result.unwrap_err();
        assert!(matches!(error.kind, IoErrorKind::Lost), "{error}");
        assert_eq!((back.to_vec(), back.parts().len()), (vec![7; 4 * 512], parts), "all of it is back");
        drop(write);
        assert_eq!(table.stats().in_flight, 0);
        drop(channel);
        assert_eq!(table.stats().lanes, 0, "and the lanes can close");
    }
}

#[test]
fn a_request_whose_split_a_lane_drops_ends_with_an_error_that_names_the_device() {
    ends_as_lost(|io, _, cx| drop(cx.split(io)), done);
    ends_as_lost(
        |io, below, cx| {
            let mut split = cx.split(io);
            cx.forward_piece(&mut split, below, 1);
        },
        done,
    );
    ends_as_lost(
        |io, below, cx| {
            let mut split = cx.split(io);
            for _ in 0..4 {
                let piece = cx.child(&mut split, 1);
                cx.forward(below, piece, [0, 0]);
            }
        },
        done,
    );
}

#[test]
fn a_split_that_is_dropped_after_pieces_have_ended_gives_their_memory_back() {
    ends_as_lost(
        |io, below, cx| {
            let mut split = cx.split(io);
            let first = cx.child(&mut split, 1);
            cx.done(first, Ok(()));
            cx.forward_piece(&mut split, below, 1);
            let third = cx.child(&mut split, 1);
            cx.done(third, Ok(()));
        },
        done,
    );
    ends_as_lost(
        |io, below, cx| {
            let split = cx.split(io);
            let leg = cx.mirror(&split);
            cx.forward(below, leg, [0, 0]);
        },
        done,
    );
}

#[test]
fn pieces_that_end_before_the_cutting_does_give_their_memory_back() {
    for data in buffers() {
        let (below, _hand) = HandDevice::make(geometry(100), 8);
        let table = LaneTable::default();
        let cut: Step = |io, _, cx| {
            let mut split = cx.split(io);
            let mut pieces: Vec<Io> = (0..4).map(|_| cx.child(&mut split, 1)).collect();
            for at in [1, 0, 1, 0] {
                cx.done(pieces.remove(at), Ok(()));
            }
            cx.join(split);
        };
        let channel = table.channel(Careless::over(below, cut, done)).unwrap();
        let parts = data.parts().len();
        let (result, back) = block_on_ready(channel.write(0, data));
        result.unwrap();
        assert_eq!((back.to_vec(), back.parts().len()), (vec![7; 4 * 512], parts));
    }
}

#[test]
fn a_request_that_a_lane_finishes_without_having_made_it_ends_with_an_error_that_names_the_device() {
    ends_as_lost(finish, done);
    ends_as_lost(forward, finish);
    // Pieces are not the lane's own either.
    let cut: Step = |io, below, cx| {
        let mut split = cx.split(io);
        while split.left() > 0 {
            let piece = cx.child(&mut split, 2);
            cx.forward(below, piece, [0, 0]);
        }
        cx.join(split);
    };
    ends_as_lost(cut, finish);
}

#[test]
fn a_request_that_another_lane_made_comes_back_to_it_although_one_below_finishes_it() {
    const OWN: u64 = 1;
    let (below, _hand) = HandDevice::make(geometry(100), 8);
    let careless = Careless::over(below, finish, done);
    let make: Step = |io, below, cx| {
        let own = cx.create_for(&io, Operation::Unmap, 0, 1, Buffers::None);
        cx.done(io, Ok(()));
        cx.forward(below, own, [OWN, 0]);
    };
    // The layer ends it when it comes back, with whatever status.
    let upper = Careless::over(careless, make, done);
    let table = LaneTable::default();
    let channel = table.channel(upper).unwrap();
    block_on_ready(channel.write(0, IoBuf::zeroed(512))).0.unwrap();
    assert_eq!(table.stats().in_flight, 0, "its maker has ended it");
    drop(channel);
    assert_eq!(table.stats().lanes, 0);
}

#[test]
fn a_lane_that_panics_while_it_cuts_a_request_loses_that_one_only() {
    let (below, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let cut: Step = |io, below, cx| {
        let block = io.start();
        let mut split = cx.split(io);
        cx.forward_piece(&mut split, below, 1);
        assert_ne!(block, 3, "a bug in a module");
        cx.join(split);
    };
    let channel = table.channel(Careless::over(below, cut, done)).unwrap();
    let mut write = Box::pin(channel.write(3 * 512, IoBuf::zeroed(1024)));
    let poll = std::panic::AssertUnwindSafe(|| poll_once(write.as_mut()));
    assert!(std::panic::catch_unwind(poll).is_err());
    table.step();
    hand.complete(3, Ok(()));
    let (result, back) = poll_once(write.as_mut()).expect("its piece is back");
    assert!(matches!(result.unwrap_err().kind, IoErrorKind::Lost));
    assert_eq!(back.len(), 1024);
    let mut other = Box::pin(channel.write(5 * 512, IoBuf::zeroed(1024)));
    assert!(poll_once(other.as_mut()).is_none());
    hand.complete(5, Ok(()));
    poll_once(other.as_mut()).unwrap().0.unwrap();
}

#[test]
fn a_pair_that_is_given_a_request_which_a_lane_holds_ends_it_for_its_maker() {
    for submits in [true, false] {
        let (device, hand) = HandDevice::make(geometry(100), 8);
        let (other, _) = HandDevice::make(geometry(100), 8);
        let table = LaneTable::default();
        let channel = table.channel(device).unwrap();
        let mut pair = table.queue_pair(&other).unwrap();
        let mut write = Box::pin(channel.write(0, IoBuf::zeroed(512)));
        assert!(poll_once(write.as_mut()).is_none());
        let held = hand.take(0);
        match submits {
            true => pair.submit(held),
            false => assert!(pair.recycle(held).is_empty()),
        }
        assert_eq!(pair.outstanding(), 0);
        let (result, back) = poll_once(write.as_mut()).expect("no caller waits for ever");
        let error = result.unwrap_err();
        assert_eq!(error.kind, IoErrorKind::Lost, "{error}");
        assert_eq!(back.len(), 512);
    }
}
