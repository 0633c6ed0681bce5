//! A lane may open a channel and make requests of it; they go on when the table is free.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use spindle_block::{
    Channel, Cx, Device, Geometry, Io, IoError, Lane, LaneCx, LaneTable, Malloc, OpenError, Submit,
};
use spindle_mem::{Buffers, IoBuf};

use crate::common::poll_once;

type Writing = Pin<Box<dyn Future<Output = (Result<(), IoError>, Buffers)>>>;

thread_local! {
    /// What devices of these tests use; no device can hold what stays on its thread.
    static TABLE: LaneTable = LaneTable::default();
    static WRITING: RefCell<Option<Writing>> = const { RefCell::new(None) };
}

/// Each request to it begins a write of the same blocks of another device by a channel of the lane's own.
struct ByChannel(Arc<dyn Device>);

impl Device for ByChannel {
    fn name(&self) -> &str {
        "by channel"
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(ByChannelLane(Rc::new(TABLE.with(|table| table.channel(self.0.clone()))?))))
    }
}

struct ByChannelLane(Rc<Channel>);

impl Lane for ByChannelLane {
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let (channel, offset, buffers) = (self.0.clone(), io.start() * 512, io.take_buffers());
        let mut writing: Writing = Box::pin(async move { channel.write(offset, buffers).fua().await });
        assert!(poll_once(writing.as_mut()).is_none(), "nothing moves while a lane runs");
        WRITING.set(Some(writing));
        cx.done(io, Ok(()));
        Submit::Taken
    }
}

#[test]
fn a_lane_opens_a_channel_and_its_requests_start_when_the_table_is_free() {
    let below: Arc<dyn Device> = Malloc::new("Malloc0", 512, 8).unwrap();
    let over: Arc<dyn Device> = Arc::new(ByChannel(below.clone()));
    let upper = TABLE.with(|table| table.channel(over)).unwrap();
    let asked = poll_once(Box::pin(upper.write(512, IoBuf::copy_from(&[7; 512]))).as_mut());
    assert!(matches!(asked, Some((Ok(()), _))));

    let mut writing = WRITING.take().unwrap();
    assert!(matches!(poll_once(writing.as_mut()), Some((Ok(()), _))));
    let lower = TABLE.with(|table| table.channel(below)).unwrap();
    let Some((Ok(()), read)) = poll_once(Box::pin(lower.read(0, IoBuf::zeroed(1536))).as_mut()) else {
        panic!("a memory disk answers at once");
    };
    assert_eq!(read.to_vec(), [[0; 512], [7; 512], [0; 512]].concat());
    drop((writing, upper, lower));
    TABLE.with(LaneTable::step);
    assert_eq!(TABLE.with(LaneTable::stats).lanes, 0, "closed, with the channel that the lane had opened");
}

#[test]
fn a_request_of_a_lane_that_is_dropped_before_it_starts_leaves_nothing() {
    let below: Arc<dyn Device> = Malloc::new("Malloc0", 512, 8).unwrap();
    let upper = TABLE.with(|table| table.channel(Arc::new(ByChannel(below)))).unwrap();
    assert!(poll_once(Box::pin(upper.write(0, IoBuf::zeroed(512))).as_mut()).is_some());
    drop(WRITING.take().unwrap());
    TABLE.with(LaneTable::step);
    assert_eq!(TABLE.with(LaneTable::stats).in_flight, 0);
}

#[test]
fn a_device_that_opens_itself_while_it_makes_its_lane_is_refused() {
    struct OnItself(Arc<Mutex<Option<Arc<dyn Device>>>>);
    impl Device for OnItself {
        fn name(&self) -> &str {
            "circle"
        }
        fn geometry(&self) -> Geometry {
            Geometry::new(512, 8).unwrap()
        }
        fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
            let own = self.0.lock().unwrap().clone().unwrap();
            let channel = TABLE.with(|table| table.channel(own))?;
            Ok(Box::new(ByChannelLane(Rc::new(channel))))
        }
    }
    let place = Arc::new(Mutex::new(None));
    let device: Arc<dyn Device> = Arc::new(OnItself(place.clone()));
    *place.lock().unwrap() = Some(device.clone());
    let refused = TABLE.with(|table| table.channel(device)).err().unwrap();
    assert!(refused.to_string().contains("lies on itself"), "{refused}");
    assert_eq!(TABLE.with(LaneTable::stats).lanes, 0);
    place.lock().unwrap().take();
}
