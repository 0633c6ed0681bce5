//! Removals while requests wait in every place where they can, and while the layer above works on something.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_bdev::{Bdev, DescOptions, LocalFuture, Module, Registry};
use spindle_block::{Device, Geometry, IoErrorKind, LaneTable, Limits, Operation, QueuePair, Status};
use spindle_mem::IoBuf;
use spindle_reactor::{now, spawn_local, yield_now};

use crate::support::{malloc, simulated};
use crate::{silent, stacks::awkward};

/// Requests that wait when the bdev goes.
const QUEUED: u64 = 1024;

fn shape() -> Geometry {
    Geometry::new(512, 64).unwrap()
}

pub fn pair(bdev: &Bdev) -> QueuePair {
    bdev.descriptor(DescOptions::new().write(true)).unwrap().queue_pair().unwrap()
}

fn submit(pair: &mut QueuePair, requests: u64) {
    for tag in 0..requests {
        let operation = if tag % 2 == 0 { Operation::Write } else { Operation::Read };
        let mut io = pair.request(operation, tag % 60, 1, IoBuf::zeroed(512));
        io.set_tag(tag);
        pair.submit(io);
    }
    // A pair starts what was submitted when it is next looked at, or here.
    LaneTable::current().unwrap().step();
}

/// Fails unless each request ended once, and as one may that was under way at a removal.
pub async fn each_ends_once(pair: &mut QueuePair, requests: u64) {
    let mut times = vec![0; requests as usize];
    while pair.outstanding() > 0 {
        pair.wait().await;
        pair.reap(|io, status: Status| {
            times[io.tag() as usize] += 1;
            assert!(
                matches!(status, Ok(()) | Err(IoErrorKind::Removed | IoErrorKind::Aborted)),
                "{status:?}"
            );
        });
    }
    assert!(times.iter().all(|times| *times == 1), "{times:?}");
}

pub async fn some_turns() {
    for _ in 0..40 {
        yield_now().await;
    }
}

/// Nothing is left on this thread once the last user has closed.
pub async fn nothing_is_left() {
    some_turns().await;
    let left = LaneTable::current().unwrap().stats();
    assert_eq!((left.lanes, left.in_flight, left.timers), (0, 0, 0), "{left:?}");
}

#[test]
fn a_removal_ends_1024_requests_that_wait_for_a_limit() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let limits = Limits { operations: Some(1), ..Limits::default() };
        bdev.disk().device().state().unwrap().set_limits(limits).await;
        let mut pair = pair(&bdev);
        submit(&mut pair, QUEUED);
        registry.unregister(&bdev).await.unwrap();
        each_ends_once(&mut pair, QUEUED).await;
        drop(pair);
        nothing_is_left().await;
    });
}

#[test]
fn a_removal_ends_1024_requests_in_front_of_a_closed_gate() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        let device = bdev.disk().device();
        let frozen = device.state().unwrap().freeze().await;
        let mut pair = pair(&bdev);
        submit(&mut pair, QUEUED);
        registry.unregister(&bdev).await.unwrap();
        each_ends_once(&mut pair, QUEUED).await;
        drop((frozen, pair));
        nothing_is_left().await;
    });
}

#[test]
fn a_removal_ends_1024_requests_that_a_device_keeps_or_has_no_room_or_no_memory_for() {
    simulated(async |registry| {
        for (effect, count) in [(Effect::Pending, QUEUED as u32), (Effect::NoMemory, u32::MAX)] {
            let base = malloc(&registry, "M0").await;
            let spec = ErrorSpec { base: "M0".into(), uuid: None };
            let bdev = error::create(&registry, spec).await.unwrap().unwrap();
            let injection = Injection { effect, count, queue_depth: 0 };
            error::inject(&registry, "EE_M0", Target::All, injection).unwrap();
            let mut pair = pair(&bdev);
            submit(&mut pair, QUEUED);
            some_turns().await;
            assert_eq!(pair.outstanding() as u64, QUEUED);
            registry.unregister(&base).await.unwrap();
            each_ends_once(&mut pair, QUEUED).await;
            drop(pair);
            nothing_is_left().await;
        }
        // Three are in the device, the others wait before it.
        let (base, shape) = (malloc(&registry, "M0").await, shape());
        let (bdev, _device) = awkward::create(&registry, "A0", "M0").await;
        assert_eq!(bdev.geometry().blocks(), shape.blocks());
        let mut pair = pair(&bdev);
        submit(&mut pair, QUEUED);
        registry.unregister(&base).await.unwrap();
        each_ends_once(&mut pair, QUEUED).await;
    });
}

#[test]
fn a_removal_ends_1024_changes_that_wait_for_a_comparison_of_their_blocks() {
    simulated(async |registry| {
        let (device, bdev) = silent::create(&registry, "S0", shape()).await;
        let desc = bdev.descriptor(DescOptions::new().write(true)).unwrap();
        let channel = desc.channel().unwrap();
        let ended = Rc::new(Cell::new(None));
        let told = ended.clone();
        // It has locked its blocks, and reads them from a device that does not answer.
        let comparing = spawn_local(async move {
            told.set(Some(channel.compare_and_write(0, IoBuf::zeroed(2 * 60 * 512)).await.0));
        });
        some_turns().await;
        assert_eq!(device.kept(), 1);
        let mut pair = desc.queue_pair().unwrap();
        submit(&mut pair, QUEUED);
        some_turns().await;
        assert_eq!((device.kept(), pair.outstanding() as u64), (1 + QUEUED / 2, QUEUED));
        registry.unregister(&bdev).await.unwrap();
        each_ends_once(&mut pair, QUEUED).await;
        comparing.await.unwrap();
        assert_eq!(ended.take().unwrap().unwrap_err().kind, IoErrorKind::Removed);
        drop((pair, desc));
        nothing_is_left().await;
    });
}

#[test]
fn a_removal_in_the_middle_of_a_split_ends_the_whole_once() {
    simulated(async |registry| {
        let shape = shape().with_max_transfer(4).unwrap();
        let (device, base) = silent::create(&registry, "S0", shape).await;
        let spec = PassthruSpec { name: "P0".into(), base: "S0".into(), uuid: None };
        let bdev = passthru::create(&registry, spec).await.unwrap().unwrap();
        for removed in [false, true] {
            let mut pair = pair(&bdev);
            let io = pair.request(Operation::Write, 0, 64, IoBuf::zeroed(64 * 512));
            pair.submit(io);
            assert_eq!(pair.reap(|_, _| ()), 0);
            some_turns().await;
            assert_eq!(device.kept(), 16, "pieces of 4 blocks");
            if removed {
                registry.unregister(&base).await.unwrap();
            } else {
                device.answer().await;
            }
            let mut ends = Vec::new();
            while pair.outstanding() > 0 {
                pair.wait().await;
                pair.reap(|io, status| ends.push((io.buffers().parts().len(), io.buffers().len(), status)));
            }
            let status = if removed { Err(IoErrorKind::Removed) } else { Ok(()) };
            assert_eq!(ends, [(1, 64 * 512, status)], "its memory is in one piece again");
        }
        nothing_is_left().await;
    });
}

#[test]
fn a_bdev_that_stands_on_one_that_keeps_requests_does_not_hold_its_removal_up() {
    simulated(async |registry| {
        let base = malloc(&registry, "M0").await;
        let spec = ErrorSpec { base: "M0".into(), uuid: None };
        error::create(&registry, spec).await.unwrap().unwrap();
        let spec = PassthruSpec { name: "P0".into(), base: "EE_M0".into(), uuid: None };
        let bdev = passthru::create(&registry, spec).await.unwrap().unwrap();
        let injection = Injection { effect: Effect::Pending, count: 4, queue_depth: 0 };
        error::inject(&registry, "EE_M0", Target::All, injection).unwrap();
        let mut pair = pair(&bdev);
        submit(&mut pair, 64);
        some_turns().await;
        assert_eq!(pair.reap(|_, status| status.unwrap()), 56, "four reads and four writes wait");
        // What waits in the middle ends with the middle, which lies below P0.
        registry.unregister(&base).await.unwrap();
        assert!(registry.bdevs().is_empty());
        let mut ended = 0;
        while pair.outstanding() > 0 {
            pair.wait().await;
            ended += pair.reap(|_, status| assert_eq!(status, Err(IoErrorKind::Aborted)));
        }
        assert_eq!(ended, 8);
        drop(pair);
        nothing_is_left().await;
    });
}

#[test]
fn a_removal_in_the_middle_of_a_reset_ends_it() {
    simulated(async |registry| {
        let (device, bdev) = silent::create(&registry, "S0", shape()).await;
        let desc = bdev.descriptor(DescOptions::new().write(true)).unwrap();
        let mut pair = desc.queue_pair().unwrap();
        submit(&mut pair, 8);
        let channel = desc.channel().unwrap();
        let resets: Vec<_> = (0..2)
            .map(|_| {
                let channel = desc.channel().unwrap();
                spawn_local(async move { channel.reset().await })
            })
            .collect();
        some_turns().await;
        // Waits behind the reset, which waits for what the device has.
        submit(&mut pair, 8);
        some_turns().await;
        assert_eq!((device.kept(), pair.outstanding()), (8, 16));
        registry.unregister(&bdev).await.unwrap();
        let mut ended = 0;
        while pair.outstanding() > 0 {
            pair.wait().await;
            ended += pair.reap(|_, status| assert!(status.is_err(), "{status:?}"));
        }
        assert_eq!(ended, 16);
        for reset in resets {
            let ended = reset.await.unwrap();
            let right =
                ended.as_ref().is_ok() || ended.as_ref().is_err_and(|e| e.kind == IoErrorKind::Removed);
            assert!(right, "{ended:?}");
        }
        drop((channel, pair, desc));
        nothing_is_left().await;
    });
}

/// Reads each bdev that it examines.
struct Reader;

impl Module for Reader {
    fn name(&self) -> &'static str {
        "reader"
    }
    fn examine(&self, bdev: Bdev) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            let channel = bdev.descriptor(DescOptions::new()).unwrap().channel().unwrap();
            let read = channel.read(0, IoBuf::zeroed(512)).await.0;
            assert_eq!(read.unwrap_err().kind, IoErrorKind::Removed);
        })
    }
}

#[test]
fn a_removal_in_the_middle_of_an_examination_ends_both() {
    simulated(async |registry: Registry| {
        registry.add_module(Arc::new(Reader)).await.unwrap();
        let (device, registered) = silent::begin(&registry, "S0", shape());
        while device.kept() == 0 {
            yield_now().await;
        }
        let bdev = registry.get("S0").unwrap();
        registry.unregister(&bdev).await.unwrap();
        // Whatever it answers, it answers.
        let _ = registered.await.unwrap();
        registry.wait_for_examine().await;
        assert!(registry.get("S0").is_err());
        nothing_is_left().await;
    });
}

#[test]
fn a_device_that_answers_nothing_keeps_only_what_was_sent_to_it_and_can_be_seen_to() {
    simulated(async |registry| {
        let (device, bdev) = silent::create(&registry, "S0", shape()).await;
        let mut stuck = pair(&bdev);
        stuck.set_opener(7);
        submit(&mut stuck, 16);
        let other = malloc(&registry, "M0").await;
        let mut works = pair(&other);
        submit(&mut works, 64);
        each_ends_once(&mut works, 64).await;
        spindle_reactor::sleep(Duration::from_secs(5)).await;
        let table = LaneTable::current().unwrap();
        let since = now();
        assert_eq!(table.overdue(7, since).len(), 16, "a caller that times requests finds them");
        let devices: Arc<dyn Device> = bdev.disk().device();
        for (id, _) in table.overdue(7, since) {
            table.abort(&devices, id);
        }
        some_turns().await;
        assert_eq!((stuck.outstanding(), device.kept()), (16, 16), "a deaf device ends none of them");
        drop(stuck);
        registry.unregister(&bdev).await.unwrap();
        assert_eq!(device.kept(), 0);
        drop(works);
        nothing_is_left().await;
    });
}
