//! While a removal waits, the lanes below the removed device end what it has passed on; no other lane is called.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use spindle_block::{
    Cx, Device, DeviceState, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneEvent, LaneId, LaneTable,
    OpenError, Submit,
};
use spindle_mem::IoBuf;

use crate::common::{geometry, poll_once};

thread_local! {
    /// Calls of `orphaned` in lanes of `Keeper`s, by their numbers.
    static CALLS: [Rc<Cell<u32>>; 8] = std::array::from_fn(|_| Rc::default());
}

fn calls(number: usize) -> u32 {
    CALLS.with(|calls| calls[number].get())
}

/// Keeps all requests, and ends the orphaned ones if it may.
struct Keeper {
    number: usize,
    deaf: bool,
}

impl Device for Keeper {
    fn name(&self) -> &str {
        "keeper"
    }
    fn geometry(&self) -> Geometry {
        geometry(64)
    }
    fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(KeeperLane { device: self, kept: Vec::new() }))
    }
}

struct KeeperLane {
    device: Arc<Keeper>,
    kept: Vec<Io>,
}

impl Lane for KeeperLane {
    fn submit(&mut self, io: Io, _cx: &mut Cx<'_>) -> Submit {
        self.kept.push(io);
        Submit::Taken
    }
    fn orphaned(&mut self, cx: &mut Cx<'_>) {
        CALLS.with(|calls| calls[self.device.number].set(calls[self.device.number].get() + 1));
        if !self.device.deaf {
            let orphans: Vec<Io> = self.kept.extract_if(.., |io| cx.is_orphaned(io)).collect();
            orphans.into_iter().for_each(|io| cx.done(io, Err(IoErrorKind::Aborted)));
        }
    }
}

/// Passes all on, and closes what lies below when it is removed, if it is hasty.
struct Upper {
    below: Arc<dyn Device>,
    state: DeviceState,
    hasty: bool,
}

impl Upper {
    fn over(below: &Arc<dyn Device>, hasty: bool) -> Arc<Upper> {
        Arc::new(Upper { below: below.clone(), state: DeviceState::new(), hasty })
    }
}

impl Device for Upper {
    fn name(&self) -> &str {
        "upper"
    }
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }
    fn state(&self) -> Option<&DeviceState> {
        Some(&self.state)
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(UpperLane { below: cx.open(&self.below)?, hasty: self.hasty }))
    }
}

struct UpperLane {
    below: LaneId,
    hasty: bool,
}

impl Lane for UpperLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.forward(self.below, io, [0, 0]);
        Submit::Taken
    }
    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        if self.hasty && matches!(event, LaneEvent::Removed) {
            cx.close(self.below);
        }
    }
}

#[test]
fn only_lanes_below_a_removed_device_are_asked_for_what_it_has_passed_on() {
    let table = LaneTable::default();
    let keeper = |number, deaf| -> Arc<dyn Device> { Arc::new(Keeper { number, deaf }) };
    let (concerned, other) = (keeper(0, true), keeper(1, true));
    let upper = Upper::over(&concerned, false);
    let bystander = Upper::over(&other, false);
    let channels = [upper.clone(), bystander].map(|device| table.channel(device).unwrap());
    let mut reads: Vec<_> =
        channels.iter().map(|channel| Box::pin(channel.read(0, IoBuf::zeroed(512)))).collect();
    reads.iter_mut().for_each(|read| assert!(poll_once(read.as_mut()).is_none()));
    let mut removed = Box::pin(upper.state.remove());
    for pass in 1..=10 {
        table.step();
        assert!(poll_once(removed.as_mut()).is_none());
        assert!(calls(0) >= pass, "it is asked again in each pass");
    }
    assert_eq!(calls(1), 0, "nothing of what was removed can be there");
}

#[test]
fn a_lane_that_a_removed_one_has_closed_is_asked_too() {
    for layers in [1, 2] {
        let table = LaneTable::default();
        let keeper: Arc<dyn Device> = Arc::new(Keeper { number: 2, deaf: false });
        // Something else holds it open, with a request of its own.
        let own = table.channel(keeper.clone()).unwrap();
        let mut stays = Box::pin(own.read(0, IoBuf::zeroed(512)));
        assert!(poll_once(stays.as_mut()).is_none());
        let hasty = Upper::over(&keeper, true);
        let top = if layers == 1 { hasty } else { Upper::over(&(hasty as Arc<dyn Device>), true) };
        let channel = table.channel(top.clone()).unwrap();
        let mut read = Box::pin(channel.read(0, IoBuf::zeroed(512)));
        assert!(poll_once(read.as_mut()).is_none());
        let mut removed = Box::pin(top.state.remove());
        table.step();
        let (ended, _) = poll_once(read.as_mut()).expect("it ends early");
        assert_eq!(ended.unwrap_err().kind, IoErrorKind::Aborted);
        poll_once(removed.as_mut()).expect("so the removal does not wait");
        assert!(poll_once(stays.as_mut()).is_none(), "requests of others go on");
    }
}

#[test]
fn an_abort_finds_a_request_in_a_lane_that_was_closed_since() {
    use crate::common::HandDevice;
    let (below, hand) = HandDevice::make(geometry(64), 8);
    let table = LaneTable::default();
    let _open = table.channel(below.clone()).unwrap();
    let upper = Upper::over(&below, true);
    let channel = table.channel(upper.clone()).unwrap();
    let mut read = Box::pin(channel.read(0, IoBuf::zeroed(512)));
    assert!(poll_once(read.as_mut()).is_none());
    let _removed = upper.state.remove();
    table.step();
    assert_eq!(hand.held(), [0], "this device ends no orphans");
    read.abort();
    let (ended, _) = poll_once(read.as_mut()).expect("the abort has ended it");
    assert_eq!(ended.unwrap_err().kind, IoErrorKind::Aborted);
}
