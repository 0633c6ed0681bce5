//! A device reaches its lanes: sizes, gates, removal, the module's own words.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spindle_block::{
    Channel, Device, DeviceState, File, FileOptions, Gate, IoErrorKind, LaneTable, Malloc, Null, Offset,
    Operation,
};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{EngineKind, Runtime, Thread, spawn_local, yield_now};

use crate::common::{HandDevice, block_on_ready, geometry, poll_once};
use crate::modules::{Pass, Switch, Turn, heard};

#[test]
fn every_holder_of_a_copy_of_the_geometry_follows_a_resize() {
    let null = Null::new("null", geometry(10));
    let pass = Pass::over(null.clone());
    let part: Arc<dyn Device> = Offset::new("part", pass.clone(), 2, 4).unwrap();
    let (one, two) = (LaneTable::default(), LaneTable::default());
    let base = one.channel(null.clone()).unwrap();
    let above = two.channel(pass.clone()).unwrap();
    let clone = above.clone();
    let pair = two.queue_pair(&(pass.clone() as Arc<dyn Device>)).unwrap();
    let fixed = two.channel(part).unwrap();
    let told = null.resize(20).unwrap();
    assert_eq!(null.geometry().blocks(), 20);
    assert_eq!(base.geometry().blocks(), 10, "told by message only");
    one.step();
    assert!(!told.is_over());
    two.step();
    assert!(told.is_over());
    for now in [base.geometry(), above.geometry(), clone.geometry(), pair.geometry()] {
        assert_eq!(now.blocks(), 20);
    }
    assert_eq!(fixed.geometry().blocks(), 4);
    assert_eq!(heard(), ["Resized"], "the layer that follows is told, once");
    block_on_ready(above.write(19 * 512, IoBuf::zeroed(512))).0.unwrap();
    let _arrives = null.resize(5).unwrap();
    two.step();
    let refused = block_on_ready(above.write(19 * 512, IoBuf::zeroed(512))).0.unwrap_err();
    assert_eq!(refused.kind, IoErrorKind::OutOfRange);
    assert!(null.resize(0).is_err());
    assert_eq!(null.geometry().blocks(), 5);
}

#[test]
fn a_frozen_device_keeps_requests_in_order_until_the_last_thaw() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let pass = Pass::over(device);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&(pass.clone() as Arc<dyn Device>)).unwrap();
    let mut submit = |start| {
        let io = pair.request(Operation::Flush, start, 0, Buffers::None);
        pair.submit(io);
    };
    submit(1);
    table.step();
    let mut freeze = Box::pin(pass.state.freeze());
    assert!(poll_once(freeze.as_mut()).is_none());
    table.step();
    assert!(poll_once(freeze.as_mut()).is_none(), "a request is in the lane");
    submit(2);
    submit(3);
    table.step();
    hand.complete(1, Ok(()));
    let frozen = poll_once(freeze.as_mut()).expect("what waits in front is not in it");
    assert_eq!(pass.state.gate(), Gate::Frozen);
    let mut again = Box::pin(pass.state.freeze());
    assert!(poll_once(again.as_mut()).is_none());
    table.step();
    let second = poll_once(again.as_mut()).unwrap();
    submit(4);
    table.step();
    assert!(hand.held().is_empty());
    drop(frozen);
    table.step();
    assert!(hand.held().is_empty(), "frozen twice");
    drop(second);
    table.step();
    assert_eq!(hand.held(), [2, 3, 4]);
    assert_eq!(heard(), ["Freeze", "Freeze", "Thaw", "Thaw"]);
}

#[test]
fn a_freeze_that_is_given_up_thaws() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let pass = Pass::over(device);
    let table = LaneTable::default();
    let channel = table.channel(pass.clone()).unwrap();
    let mut freeze = Box::pin(pass.state.freeze());
    assert!(poll_once(freeze.as_mut()).is_none());
    table.step();
    let mut read = Box::pin(channel.read(0, IoBuf::zeroed(512)));
    assert!(poll_once(read.as_mut()).is_none());
    drop(freeze);
    table.step();
    assert_eq!(hand.held(), [0]);
    hand.complete(0, Ok(()));
    assert!(poll_once(read.as_mut()).is_some());
}

#[test]
fn a_lane_opened_while_its_device_is_frozen_is_frozen_too() {
    let pass = Pass::over(Null::new("null", geometry(8)));
    let frozen = block_on_ready(pass.state.freeze());
    let table = LaneTable::default();
    let channel = table.channel(pass.clone()).unwrap();
    let mut read = Box::pin(channel.read(0, IoBuf::zeroed(512)));
    assert!(poll_once(read.as_mut()).is_none());
    drop(frozen);
    table.step();
    poll_once(read.as_mut()).unwrap().0.unwrap();
}

#[test]
fn a_removed_device_ends_what_waits_and_what_comes_and_waits_for_what_it_holds() {
    let (device, hand) = HandDevice::make(geometry(100), 1);
    let pass = Pass::over(device);
    let table = LaneTable::default();
    let mut pair = table.queue_pair(&(pass.clone() as Arc<dyn Device>)).unwrap();
    let first = pair.request(Operation::Flush, 0, 0, Buffers::None);
    pair.submit(first);
    table.step();
    let mut freeze = Box::pin(pass.state.freeze());
    assert!(poll_once(freeze.as_mut()).is_none());
    table.step();
    let second = pair.request(Operation::Flush, 1, 0, Buffers::None);
    pair.submit(second);
    table.step();
    let removed = pass.state.remove();
    table.step();
    let third = pair.request(Operation::Flush, 2, 0, Buffers::None);
    pair.submit(third);
    let mut seen = Vec::new();
    pair.reap(|io, status| seen.push((io.start(), status)));
    assert_eq!(seen, [(1, Err(IoErrorKind::Removed)), (2, Err(IoErrorKind::Removed))]);
    assert!(!removed.is_over(), "the device has one");
    hand.complete(0, Ok(()));
    assert!(removed.is_over());
    assert!(poll_once(freeze.as_mut()).is_some());
    drop(freeze);
    table.step();
    assert_eq!(pass.state.gate(), Gate::Husk, "a thaw brings nothing back");
    let other = LaneTable::default();
    let late = other.channel(pass.clone()).unwrap();
    assert_eq!(block_on_ready(late.flush()).unwrap_err().kind, IoErrorKind::Removed);
    drop((pair, late));
    assert_eq!(pass.state.lanes(), 0, "a husk closes as any lane does");
}

#[test]
fn an_event_is_over_when_the_lane_closes_or_its_table_goes_instead() {
    let pass = Pass::over(Null::new("null", geometry(8)));
    let (one, two) = (LaneTable::default(), LaneTable::default());
    let channel = one.channel(pass.clone()).unwrap();
    let kept = two.channel(pass.clone()).unwrap();
    assert_eq!(pass.state.lanes(), 2);
    let told = pass.state.send(Arc::new("a word"));
    drop(channel);
    one.step();
    assert!(!told.is_over());
    drop((kept, two));
    assert!(told.is_over());
    assert_eq!(pass.state.lanes(), 0);
    assert!(pass.state.send(Arc::new("no lane is open")).is_over());
    assert!(heard().is_empty(), "a lane in the place of a closed one would not be told either");
}

#[test]
fn an_event_for_a_closed_lane_does_not_reach_the_next_one_in_its_place() {
    let pass = Pass::over(Null::new("null", geometry(8)));
    let table = LaneTable::default();
    drop(table.channel(pass.clone()).unwrap());
    let first = table.channel(pass.clone()).unwrap();
    let told = pass.state.send(Arc::new("for the first"));
    drop(first);
    let _second = table.channel(pass.clone()).unwrap();
    table.step();
    assert!(told.is_over());
    assert!(heard().is_empty());
}

#[test]
fn a_lane_opens_and_closes_devices_below_it_while_it_is_open() {
    let (old, old_hand) = HandDevice::make(geometry(100), 8);
    let (new, new_hand) = HandDevice::make(geometry(100), 8);
    let switch = Arc::new(Switch { first: old, state: DeviceState::new() });
    let table = LaneTable::default();
    let channel = table.channel(switch.clone()).unwrap();
    let start = |block: u64| {
        let mut read = Box::pin(channel.read(block * 512, IoBuf::zeroed(512)));
        assert!(poll_once(read.as_mut()).is_none());
        read
    };
    let before = start(1);
    let told = switch.state.send(Arc::new(Turn::To(new)));
    table.step();
    assert!(told.is_over());
    assert_eq!(heard(), ["opened hand"]);
    let after = start(2);
    assert_eq!((old_hand.held(), new_hand.held()), (vec![1], vec![2]));
    assert_eq!(table.stats().lanes, 3);
    new_hand.complete(2, Ok(()));
    old_hand.complete(1, Ok(()));
    drop((before, after));
    drop(channel);
    assert_eq!(table.stats().lanes, 0);
}

#[test]
fn a_request_to_a_lane_that_was_closed_ends_as_removed() {
    let switch = Arc::new(Switch { first: Null::new("null", geometry(8)), state: DeviceState::new() });
    let table = LaneTable::default();
    let channel = table.channel(switch.clone()).unwrap();
    block_on_ready(channel.flush()).unwrap();
    let _told = switch.state.send(Arc::new(Turn::Close));
    table.step();
    assert_eq!(table.stats().lanes, 1);
    let _another = table.channel(Malloc::new("another", 512, 8).unwrap()).unwrap();
    assert_eq!(block_on_ready(channel.flush()).unwrap_err().kind, IoErrorKind::Removed);
}

#[test]
fn a_device_opened_below_that_lies_on_the_lane_itself_is_refused() {
    let switch = Arc::new(Switch { first: Null::new("null", geometry(8)), state: DeviceState::new() });
    let over: Arc<dyn Device> = Pass::over(switch.clone());
    let table = LaneTable::default();
    let channel = table.channel(over.clone()).unwrap();
    for circle in [over, switch.clone()] {
        let _told = switch.state.send(Arc::new(Turn::To(circle)));
        table.step();
        let said = heard();
        assert!(said.iter().any(|one| one.contains("lies on itself")), "{said:?}");
    }
    block_on_ready(channel.flush()).unwrap();
    drop(channel);
    assert_eq!(table.stats().lanes, 0);
}

#[test]
fn events_reach_the_lanes_of_every_thread_and_are_over_when_a_thread_exits() {
    for kind in [EngineKind::Sim(1), EngineKind::Sim(2), EngineKind::Epoll] {
        let runtime = Runtime::builder().reactors(2).engine(kind).build().unwrap();
        runtime
            .run(async || {
                let null = Null::new("null", geometry(8));
                let pass = Pass::over(null.clone());
                let (opened, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
                let mut threads = Vec::new();
                for n in 0..4 {
                    let thread = Thread::create(&format!("t{n}"), "[0-1023]").unwrap();
                    let (pass, opened, ended) = (pass.clone(), opened.clone(), ended.clone());
                    drop(thread.spawn(async move || {
                        let channel = Channel::open(pass).unwrap();
                        opened.fetch_add(1, Ordering::SeqCst);
                        while channel.geometry().blocks() == 8 {
                            assert_eq!(channel.read(0, IoBuf::zeroed(512)).await.0, Ok(()));
                            yield_now().await;
                        }
                        ended.fetch_add(1, Ordering::SeqCst);
                    }));
                    threads.push(thread);
                }
                while opened.load(Ordering::SeqCst) < 4 {
                    yield_now().await;
                }
                assert_eq!(pass.state.threads().len(), 4);
                let frozen = pass.state.freeze().await;
                null.resize(16).unwrap().await;
                drop(frozen);
                threads.iter().for_each(Thread::exit);
                let told = pass.state.send(Arc::new("a word"));
                for thread in &threads {
                    thread.joined().await;
                }
                told.await;
                assert_eq!(ended.load(Ordering::SeqCst), 4);
                assert_eq!(pass.state.lanes(), 0);
            })
            .unwrap();
    }
}

#[test]
fn a_file_that_has_grown_says_so_when_it_is_scanned_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let grow = path.clone();
    Runtime::builder()
        .reactors(1)
        .build()
        .unwrap()
        .run(async move || {
            let options = FileOptions::new(&path).writable(true).create(1 << 20).block_size(4096);
            let file = File::open(options).await.unwrap();
            let channel = Channel::open(file.clone()).unwrap();
            std::fs::OpenOptions::new().write(true).open(&grow).unwrap().set_len(2 << 20).unwrap();
            let beyond = || channel.write(1 << 20, IoBuf::zeroed(4096));
            assert_eq!(beyond().await.0.unwrap_err().kind, IoErrorKind::OutOfRange);
            file.rescan().await.unwrap();
            assert_eq!(channel.geometry().bytes(), 2 << 20);
            beyond().await.0.unwrap();
        })
        .unwrap();
}

#[test]
fn who_waits_for_a_freeze_is_woken_by_the_last_request_of_another_thread() {
    let runtime = Runtime::builder().reactors(1).engine(EngineKind::Sim(5)).build().unwrap();
    runtime
        .run(async || {
            let (device, hand) = HandDevice::make(geometry(8), 8);
            let pass = Pass::over(device);
            let channel = Channel::open(pass.clone()).unwrap();
            let read = spawn_local(async move { channel.read(0, IoBuf::zeroed(512)).await.0 });
            while hand.held().is_empty() {
                yield_now().await;
            }
            let done = Rc::new(Cell::new(false));
            let waits = done.clone();
            let waiter = spawn_local(async move {
                let frozen = pass.state.freeze().await;
                waits.set(true);
                frozen
            });
            for _ in 0..20 {
                yield_now().await;
            }
            assert!(!done.get());
            hand.complete(0, Ok(()));
            drop(waiter.await.unwrap());
            read.await.unwrap().unwrap();
        })
        .unwrap();
}
