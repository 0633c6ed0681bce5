//! Requests beyond reading and writing: compare, copy, seek, reset, force unit access, openers.

use std::sync::Arc;
use std::time::Duration;

use spindle_block::{
    Cx, Device, File, FileOptions, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, LaneTable, Malloc, Null,
    Offset, OpenError, Operation, SimDisk, Submit,
};
use spindle_engine::sim::{Disk, DiskOptions, World};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::{EngineKind, Runtime, Time};

use crate::common::{HandDevice, block_on_ready, geometry, poll_once};
use crate::modules::Pass;

fn filled(blocks: usize, byte: u8) -> IoBuf {
    let mut buffer = IoBuf::zeroed(blocks * 512);
    buffer.fill(byte);
    buffer
}

#[test]
fn a_compare_names_the_first_byte_that_differs_in_one_buffer_or_in_a_list() {
    let table = LaneTable::default();
    let channel = table.channel(Malloc::new("Malloc0", 512, 64).unwrap()).unwrap();
    block_on_ready(channel.write(512, filled(4, 7))).0.unwrap();
    let list = || Buffers::from(vec![filled(1, 7), filled(3, 7)]);
    let (same, back) = block_on_ready(channel.compare(512, list()));
    same.unwrap();
    assert_eq!(back.len(), 2048, "buffers come back");
    for at in [0, 511, 512, 1300, 2047] {
        let mut other = filled(4, 7);
        other[at] = 8;
        let list = Buffers::from(vec![other.split_to(512), other]);
        let error = block_on_ready(channel.compare(512, list)).0.unwrap_err();
        assert_eq!(error.kind, IoErrorKind::Miscompare { offset: at as u32 });
        assert!(error.to_string().contains(&format!("byte {at}")), "{error}");
    }
}

/// Cuts every request into pieces of a block.
struct Slicer(Arc<dyn Device>);

impl Device for Slicer {
    fn name(&self) -> &str {
        "slicer"
    }
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(SlicerLane(cx.open(&self.0)?)))
    }
}

struct SlicerLane(LaneId);

impl Lane for SlicerLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let mut split = cx.split(io);
        while split.left() > 0 {
            cx.forward_piece(&mut split, self.0, 1);
        }
        cx.join(split);
        Submit::Taken
    }
}

#[test]
fn compares_and_copies_can_be_cut_and_say_where_in_the_whole_they_differ() {
    let table = LaneTable::default();
    let malloc = Malloc::new("Malloc0", 512, 64).unwrap();
    let part = Offset::new("part", malloc.clone(), 8, 32).unwrap();
    let sliced = table.channel(Arc::new(Slicer(part))).unwrap();
    let whole = table.channel(malloc).unwrap();
    block_on_ready(whole.write(8 * 512, filled(1, 1))).0.unwrap();
    block_on_ready(whole.write(9 * 512, filled(1, 2))).0.unwrap();
    block_on_ready(sliced.copy(10 * 512, 0, 1024)).unwrap();
    let (read, data) = block_on_ready(whole.read(18 * 512, IoBuf::zeroed(1024)));
    read.unwrap();
    assert_eq!((data.to_vec()[0], data.to_vec()[1023]), (1, 2), "the part shifts both ranges");
    let mut wanted = filled(2, 1);
    wanted[512..].fill(2);
    wanted[700] = 9;
    let kind = block_on_ready(sliced.compare(10 * 512, wanted)).0.unwrap_err().kind;
    assert_eq!(kind, IoErrorKind::Miscompare { offset: 700 });
    let beyond = block_on_ready(sliced.copy(0, 31 * 512, 1024)).unwrap_err();
    assert_eq!(beyond.kind, IoErrorKind::OutOfRange, "the source is checked too");
}

#[test]
fn a_copy_between_overlapping_ranges_reads_before_it_writes() {
    let table = LaneTable::default();
    let channel = table.channel(Malloc::new("Malloc0", 512, 16).unwrap()).unwrap();
    for (to, from) in [(1u64, 0u64), (0, 1), (3, 0), (0, 3), (2, 2)] {
        for block in 0..8 {
            block_on_ready(channel.write(block * 512, filled(1, block as u8))).0.unwrap();
        }
        block_on_ready(channel.copy(to * 512, from * 512, 5 * 512)).unwrap();
        let (_, data) = block_on_ready(channel.read(to * 512, IoBuf::zeroed(5 * 512)));
        let firsts: Vec<u64> = data.to_vec().chunks(512).map(|block| u64::from(block[0])).collect();
        assert_eq!(firsts, (from..from + 5).collect::<Vec<u64>>(), "{from} to {to}");
    }
}

#[test]
fn a_compare_and_write_has_buffers_for_both_and_reaches_the_device_whole() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let channel = table.channel(device).unwrap();
    let mut both = Box::pin(channel.compare_and_write(512, IoBuf::zeroed(2 * 1024)));
    assert!(poll_once(both.as_mut()).is_none());
    assert_eq!((hand.held(), hand.buffer_bytes()), (vec![1], 2048));
    hand.complete(1, Err(IoErrorKind::Miscompare { offset: 3 }));
    assert!(poll_once(both.as_mut()).unwrap().0.is_err());
    for wrong in [512, 1024 + 1, 2] {
        let refused = block_on_ready(channel.compare_and_write(0, IoBuf::zeroed(wrong)));
        assert_eq!(refused.0.unwrap_err().kind, IoErrorKind::Unaligned, "{wrong} bytes");
    }
    assert!(hand.held().is_empty());
}

#[test]
fn what_a_seek_finds_is_told_in_the_terms_of_the_device_that_was_asked() {
    struct Finds(u64);
    impl Device for Finds {
        fn name(&self) -> &str {
            "finds"
        }
        fn geometry(&self) -> Geometry {
            geometry(100)
        }
        fn lane(self: Arc<Self>, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
            Ok(Box::new(FindsLane(self.0)))
        }
    }
    struct FindsLane(u64);
    impl Lane for FindsLane {
        fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
            io.set_aux(self.0);
            cx.done(io, Ok(()));
            Submit::Taken
        }
    }
    let table = LaneTable::default();
    for (at, found) in [(15, 5), (30, 20), (70, 20)] {
        let part = Offset::new("part", Arc::new(Finds(at)), 10, 20).unwrap();
        let channel = table.channel(part).unwrap();
        assert_eq!(block_on_ready(channel.seek_data(512)).unwrap(), found * 512);
        assert_eq!(block_on_ready(channel.seek_hole(512)).unwrap(), found * 512);
    }
    let malloc = table.channel(Malloc::new("Malloc0", 512, 8).unwrap()).unwrap();
    assert_eq!(block_on_ready(malloc.seek_data(0)).unwrap_err().kind, IoErrorKind::Unsupported);
}

#[test]
fn an_operation_that_neither_the_lanes_of_a_device_do_nor_the_layer_ends_as_unsupported() {
    let malloc: Arc<dyn Device> = Malloc::new("Malloc0", 512, 16).unwrap();
    let sim: Arc<dyn Device> = SimDisk::immediate("sim", Disk::new(DiskOptions::new(1 << 20))).unwrap();
    let null: Arc<dyn Device> = Null::new("null", geometry(16));
    let part: Arc<dyn Device> = Offset::new("part", malloc.clone(), 2, 8).unwrap();
    let table = LaneTable::default();
    for device in [malloc, sim, null, part] {
        let mut pair = table.queue_pair(&device).unwrap();
        for operation in Operation::ALL {
            let bytes = match operation {
                Operation::CompareAndWrite => 1024,
                _ if operation.moves_data() => 512,
                _ => 0,
            };
            let ranged = !matches!(operation, Operation::Flush | Operation::Reset);
            let io = pair.request(operation, 0, u64::from(ranged), IoBuf::zeroed(bytes));
            pair.submit(io);
            let emulated = matches!(
                operation,
                Operation::Compare | Operation::CompareAndWrite | Operation::Copy | Operation::WriteZeroes
            );
            while pair.outstanding() > 0 {
                table.step();
                pair.reap(|_, status| {
                    let done = status != Err(IoErrorKind::Unsupported);
                    let name = device.name();
                    assert_eq!(done, emulated || device.supports(operation), "{operation} of {name}");
                });
            }
        }
    }
}

/// Each change of data with and without force unit access, by a pair.
fn changes(flushes: impl Fn() -> u64, device: &Arc<dyn Device>) {
    let table = LaneTable::default();
    let mut pair = table.queue_pair(device).unwrap();
    for operation in [Operation::Write, Operation::WriteZeroes, Operation::Unmap] {
        for fua in [false, true] {
            let before = flushes();
            let buffers = if operation == Operation::Write { filled(1, 1).into() } else { Buffers::None };
            let mut io = pair.request(operation, 0, 1, buffers);
            io.set_fua(fua);
            pair.submit(io);
            assert_eq!(pair.reap(|_, status| status.unwrap()), 1);
            assert_eq!(flushes() - before, u64::from(fua), "{operation} with fua {fua}");
        }
    }
}

#[test]
fn every_change_with_force_unit_access_is_durable_through_layers_and_cuts() {
    let disk = Disk::new(DiskOptions::new(1 << 20));
    let sim: Arc<dyn Device> = SimDisk::immediate("sim", disk.clone()).unwrap();
    let counts = || disk.counters().flushes;
    changes(counts, &sim);
    changes(counts, &(Offset::new("part", sim.clone(), 4, 16).unwrap() as Arc<dyn Device>));
    changes(counts, &(Arc::new(Slicer(Pass::over(sim))) as Arc<dyn Device>));
}

#[test]
fn a_file_makes_every_change_with_force_unit_access_durable() {
    let disk = Disk::new(DiskOptions::new(1 << 20));
    let world = World::new(3);
    world.add_disk("/disk", disk.clone());
    let runtime = Runtime::builder().engine(EngineKind::Sim(3)).world(world).build().unwrap();
    runtime
        .run(async move || {
            let file = File::open(FileOptions::new("/disk").writable(true)).await.unwrap();
            let channel = spindle_block::Channel::open(file).unwrap();
            for fua in [false, true] {
                let before = disk.counters().flushes;
                let (write, zeroes, unmap) =
                    (channel.write(0, filled(8, 1)), channel.write_zeroes(0, 4096), channel.unmap(0, 4096));
                if fua {
                    write.fua().await.0.unwrap();
                    zeroes.fua().await.unwrap();
                    unmap.fua().await.unwrap();
                } else {
                    write.await.0.unwrap();
                    zeroes.await.unwrap();
                    unmap.await.unwrap();
                }
                assert_eq!(disk.counters().flushes - before, if fua { 3 } else { 0 });
            }
        })
        .unwrap();
}

#[test]
fn a_channel_of_a_reader_refuses_changes_and_others_do_not() {
    let table = LaneTable::default();
    let writer = table.channel(Malloc::new("Malloc0", 512, 8).unwrap()).unwrap();
    let reader = writer.clone();
    reader.set_read_only();
    let second = reader.clone();
    for channel in [&reader, &second] {
        let refused = block_on_ready(channel.write(0, filled(1, 1))).0.unwrap_err();
        assert_eq!(refused.kind, IoErrorKind::ReadOnly);
        assert_eq!(block_on_ready(channel.copy(0, 512, 512)).unwrap_err().kind, IoErrorKind::ReadOnly);
        block_on_ready(channel.read(0, filled(1, 1))).0.unwrap();
    }
    block_on_ready(writer.write(0, filled(1, 1))).0.unwrap();
}

#[test]
fn requests_of_an_opener_are_found_by_age_and_can_be_aborted() {
    let (device, hand) = HandDevice::make(geometry(100), 8);
    let table = LaneTable::default();
    let channel = table.channel(Pass::over(device.clone())).unwrap();
    channel.set_opener(7);
    let mut pair = table.queue_pair(&(device as Arc<dyn Device>)).unwrap();
    pair.set_opener(8);
    table.advance(Duration::from_secs(1));
    let mut first = Box::pin(channel.read(512, IoBuf::zeroed(512)));
    assert!(poll_once(first.as_mut()).is_none());
    table.advance(Duration::from_secs(1));
    let mut second = Box::pin(channel.read(1024, IoBuf::zeroed(512)));
    assert!(poll_once(second.as_mut()).is_none());
    let io = pair.request(Operation::Read, 3, 1, IoBuf::zeroed(512));
    pair.submit(io);
    table.step();
    let second_on = Time(2_000_000_000);
    let old = table.overdue(7, second_on);
    assert_eq!(old.iter().map(|(_, since)| since.0).collect::<Vec<u64>>(), [1_000_000_000]);
    assert_eq!((table.overdue(7, Time(u64::MAX)).len(), table.overdue(8, Time(u64::MAX)).len()), (2, 1));
    table.abort(channel.device(), old[0].0);
    assert_eq!(poll_once(first.as_mut()).unwrap().0.unwrap_err().kind, IoErrorKind::Aborted);
    assert!(table.overdue(7, second_on).is_empty());
    hand.complete(3, Ok(()));
    let mut again = None;
    pair.reap(|io, _| again = Some(io));
    assert!(table.overdue(8, Time(u64::MAX)).is_empty());
    assert_eq!(again.unwrap().submitted(), Some(second_on));
}

#[test]
fn failures_of_the_system_keep_their_meaning() {
    let kind = |errno| IoErrorKind::from_os(&std::io::Error::from_raw_os_error(errno));
    assert_eq!(kind(61), IoErrorKind::Medium);
    assert_eq!(kind(110), IoErrorKind::TimedOut);
    assert_eq!(kind(12), IoErrorKind::NoMemory);
    assert_eq!(size_of::<spindle_block::Status>(), 8, "a status stays small");
}
