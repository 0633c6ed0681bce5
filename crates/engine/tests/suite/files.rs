//! Files.

use std::io::ErrorKind;
use std::time::Duration;

use spindle_engine::{Direct, Op, OpenOptions, Output, Token, spawn_pinned};
use spindle_mem::{Buffers, IoBuf};

use super::{Bench, buffer, bytes_of, pattern};

pub fn what_was_written_is_read(bench: &mut Bench) {
    let file = bench.file("a", 1 << 20);
    let bytes = pattern(300_000, 1);
    assert_eq!(bench.write(&file, 12_288, &bytes), bytes.len());
    assert!(bench.read(&file, 12_288, bytes.len()) == bytes);
    assert_eq!(bench.read(&file, 12_288 + 300_000, 4096), vec![0; 4096]);
}

pub fn scattered_buffers_are_one_transfer_in_order(bench: &mut Bench) {
    let file = bench.file("a", 1 << 20);
    let bytes = pattern(24_576, 2);
    let parts = |lengths: [usize; 3]| {
        let mut rest = &bytes[..];
        lengths.map(|n| {
            let (now, later) = rest.split_at(n);
            rest = later;
            IoBuf::copy_from(now)
        })
    };
    let buffers = Buffers::from(Vec::from(parts([4096, 12_288, 8192])));
    assert_eq!(bench.output(Op::Write { file: file.clone(), offset: 4096, buffers }).bytes(), 24_576);
    let buffers = Buffers::from(vec![IoBuf::zeroed(16_384), IoBuf::zeroed(512), IoBuf::zeroed(7680)]);
    let done = bench.run(Op::Read { file, offset: 4096, buffers });
    assert_eq!(done.result.unwrap().bytes(), 24_576);
    assert!(bytes_of(&done.op.into_buffers()) == bytes);
}

pub fn more_slices_than_the_kernel_takes_at_once_are_still_one_transfer(bench: &mut Bench) {
    let file = bench.file("a", 2 << 20);
    let bytes = pattern(2500 * 512, 3);
    let buffers = Buffers::from(bytes.chunks(512).map(IoBuf::copy_from).collect::<Vec<_>>());
    assert_eq!(bench.output(Op::Write { file: file.clone(), offset: 0, buffers }).bytes(), bytes.len());
    let buffers = Buffers::from((0..2500).map(|_| IoBuf::zeroed(512)).collect::<Vec<_>>());
    let done = bench.run(Op::Read { file, offset: 0, buffers });
    assert_eq!(done.result.unwrap().bytes(), bytes.len());
    assert!(bytes_of(&done.op.into_buffers()) == bytes);
}

pub fn a_read_past_the_end_reports_what_was_there(bench: &mut Bench) {
    let file = bench.file("a", 10_240);
    bench.write(&file, 8192, &pattern(2048, 4));
    assert_eq!(bench.read(&file, 8192, 8192), pattern(2048, 4));
    assert_eq!(bench.read(&file, 10_240, 512), b"");
    assert_eq!(bench.read(&file, 1 << 40, 512), b"");
}

pub fn an_empty_transfer_succeeds(bench: &mut Bench) {
    let file = bench.file("a", 4096);
    let read = Op::Read { file: file.clone(), offset: 0, buffers: Buffers::None };
    assert_eq!(bench.output(read).bytes(), 0);
    assert_eq!(bench.output(Op::Write { file, offset: 0, buffers: Buffers::None }).bytes(), 0);
}

pub fn an_offset_that_no_file_reaches_is_refused(bench: &mut Bench) {
    let file = bench.file("a", 4096);
    bench.write(&file, 0, &pattern(4096, 3));
    for offset in [1 << 63, u64::MAX - 1, u64::MAX] {
        let write = Op::Write { file: file.clone(), offset, buffers: buffer(b"elsewhere") };
        let read = Op::Read { file: file.clone(), offset, buffers: IoBuf::zeroed(16).into() };
        for op in [write, read] {
            let error = bench.error(op);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{offset}: {error}");
        }
    }
    assert_eq!(bench.read(&file, 0, 8192), pattern(4096, 3), "nothing changed");
}

pub fn a_file_that_cannot_be_made_as_large_is_removed(bench: &mut Bench) {
    if bench.engine.world().is_some() {
        return;
    }
    let options = OpenOptions::new(bench.path("huge")).writable(true).create(u64::MAX);
    bench.error(Op::Open { options: Box::new(options) });
    assert!(!bench.path("huge").exists());
}

pub fn a_flush_succeeds_and_data_survives_a_second_opening(bench: &mut Bench) {
    let file = bench.file("a", 8192);
    bench.write(&file, 0, &pattern(8192, 5));
    assert!(matches!(bench.output(Op::Flush { file: file.clone() }), Output::Done));
    drop(file);
    let again = bench.open(OpenOptions::new(bench.path("a")));
    assert_eq!(bench.read(&again, 0, 8192), pattern(8192, 5));
}

pub fn a_file_that_exists_keeps_its_size(bench: &mut Bench) {
    let file = bench.file("a", 8192);
    bench.write(&file, 0, b"kept");
    let again = bench.file("a", 1 << 20);
    assert_eq!(again.info().size, 8192);
    assert_eq!(bench.read(&again, 0, 4), b"kept");
}

pub fn size_and_geometry_are_known(bench: &mut Bench) {
    let file = bench.file("a", 10_240);
    let known = *file.info();
    assert_eq!(known.size, 10_240);
    assert!(known.writable && !known.block_device && !known.direct);
    assert!(known.logical_block.is_power_of_two() && known.physical_block >= known.logical_block);
    assert_eq!(known.memory_alignment, 1);
    let Output::Info(now) = bench.output(Op::Inspect { file }) else { panic!("no info") };
    assert_eq!(now, known);
}

pub fn a_missing_file_is_an_error_that_names_it(bench: &mut Bench) {
    let options = OpenOptions::new(bench.path("nowhere"));
    let error = bench.error(Op::Open { options: Box::new(options) });
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("nowhere"), "{error}");
}

pub fn a_read_only_file_cannot_be_written(bench: &mut Bench) {
    bench.file("a", 4096);
    let file = bench.open(OpenOptions::new(bench.path("a")));
    assert!(!file.info().writable);
    bench.error(Op::Write { file: file.clone(), offset: 0, buffers: buffer(b"x") });
    assert_eq!(bench.read(&file, 0, 1), [0]);
}

pub fn a_zeroed_range_reads_zero_and_the_rest_stays(bench: &mut Bench) {
    let file = bench.file("a", 1 << 20);
    let bytes = pattern(1 << 20, 6);
    bench.write(&file, 0, &bytes);
    bench.output(Op::ZeroRange { file: file.clone(), offset: 4096, length: 600_000 });
    let now = bench.read(&file, 0, 1 << 20);
    assert!(now[..4096] == bytes[..4096] && now[604_096..] == bytes[604_096..]);
    assert!(now[4096..604_096].iter().all(|b| *b == 0));
}

pub fn zeroing_past_the_end_is_refused_and_grows_nothing(bench: &mut Bench) {
    let file = bench.file("a", 8192);
    let error = bench.error(Op::ZeroRange { file: file.clone(), offset: 4096, length: 8192 });
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let Output::Info(info) = bench.output(Op::Inspect { file }) else { panic!("no info") };
    assert_eq!(info.size, 8192);
}

pub fn a_discarded_range_reads_as_promised_or_is_unsupported(bench: &mut Bench) {
    let file = bench.file("a", 1 << 20);
    let bytes = pattern(1 << 20, 7);
    bench.write(&file, 0, &bytes);
    let done = bench.run(Op::Discard { file: file.clone(), offset: 8192, length: 65_536 });
    let now = bench.read(&file, 0, 1 << 20);
    assert!(now[..8192] == bytes[..8192] && now[73_728..] == bytes[73_728..]);
    match done.result {
        Ok(_) if file.info().discard_reads_zero => assert!(now[8192..73_728].iter().all(|b| *b == 0)),
        Ok(_) => {}
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(now == bytes, "unsupported means unchanged");
        }
    }
}

pub fn a_seek_finds_what_was_written_and_no_hole_that_holds_data(bench: &mut Bench) {
    let file = bench.file("a", 1 << 20);
    bench.write(&file, 512 << 10, &pattern(4096, 3));
    bench.output(Op::Flush { file: file.clone() });
    let mut seek = |offset, unit, hole| {
        let Output::Found(at) = bench.output(Op::Seek { file: file.clone(), offset, unit, hole }) else {
            panic!("a seek finds a place")
        };
        at
    };
    for unit in [512, 4096, 64 << 10] {
        let found = seek(0, unit, false);
        assert!(found <= 512 << 10 && found.is_multiple_of(unit), "{found} in units of {unit}");
        let hole = seek(512 << 10, unit, true);
        assert!(hole >= (512 << 10) + 4096 && hole.is_multiple_of(unit), "{hole} in units of {unit}");
    }
    let (end, beyond) = (seek(1 << 20, 512, true), seek(2 << 20, 512, true));
    assert_eq!((end, beyond), (1 << 20, 1 << 20), "the end, if there is none");
}

pub fn direct_transfers_carry_the_same_bytes(bench: &mut Bench) {
    let options = OpenOptions::new(bench.path("a")).writable(true).create(1 << 20).direct(Direct::Wanted);
    let file = bench.open(options);
    let bytes = pattern(65_536, 8);
    bench.write(&file, 4096, &bytes);
    assert!(bench.read(&file, 4096, 65_536) == bytes);
    let at_end = bench.read(&file, (1 << 20) - 4096, 8192);
    assert_eq!(at_end.len(), 4096);
}

pub fn a_locked_file_has_one_opener_and_the_holder_is_named(bench: &mut Bench) {
    let options = OpenOptions::new(bench.path("a")).writable(true).create(4096).locked(true);
    let first = bench.open(options.clone());
    let error = bench.error(Op::Open { options: Box::new(options.clone()) });
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let said = error.to_string();
    assert!(said.contains("this process") || said.contains("this simulation"), "{said}");
    let reader = OpenOptions::new(bench.path("a")).locked(true);
    assert_eq!(bench.error(Op::Open { options: Box::new(reader.clone()) }).kind(), ErrorKind::WouldBlock);
    drop(first);
    let (one, two) = (bench.open(reader.clone()), bench.open(reader));
    assert_eq!(bench.error(Op::Open { options: Box::new(options.clone()) }).kind(), ErrorKind::WouldBlock);
    drop((one, two));
    bench.open(options);
}

pub fn a_thousand_operations_at_once_all_complete(bench: &mut Bench) {
    let file = bench.file("a", 1000 * 512);
    let tokens: Vec<_> = (0..1000u64)
        .map(|i| {
            let buffers = buffer(&pattern(512, i as u8));
            bench.submit(Op::Write { file: file.clone(), offset: i * 512, buffers })
        })
        .collect();
    assert_eq!(bench.driver.in_flight(), 1000);
    for token in tokens {
        assert_eq!(bench.wait(token).result.unwrap().bytes(), 512);
    }
    assert_eq!(bench.driver.in_flight(), 0);
    for i in [0, 255, 256, 999u64] {
        assert!(bench.read(&file, i * 512, 512) == pattern(512, i as u8));
    }
}

pub fn a_cancelled_operation_comes_back_with_its_buffers(bench: &mut Bench) {
    let file = bench.file("a", 1 << 20);
    let tokens: Vec<_> = (0..64)
        .map(|_| {
            bench.submit(Op::Read { file: file.clone(), offset: 0, buffers: IoBuf::zeroed(65_536).into() })
        })
        .collect();
    for token in &tokens {
        bench.driver.cancel(*token);
    }
    for token in tokens {
        let done = bench.wait(token);
        assert_eq!(done.op.into_buffers().len(), 65_536);
        match done.result {
            Ok(output) => assert_eq!(output.bytes(), 65_536),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
        }
    }
}

pub fn a_handle_of_another_engine_is_refused(bench: &mut Bench) {
    let Some(mut other) = Bench::new(bench.engine.kind()) else { return };
    let foreign = other.file("b", 4096);
    let error = bench.error(Op::Flush { file: foreign });
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("another engine"), "{error}");
}

pub fn a_driver_may_be_dropped_with_operations_in_flight(bench: &mut Bench) {
    let file = bench.file("a", 1 << 20);
    let mut second = bench.engine.driver(1).unwrap();
    for i in 0..32 {
        let buffers = IoBuf::zeroed(65_536).into();
        second.submit(Token(i), Op::Read { file: file.clone(), offset: 0, buffers });
    }
    second.poll(&mut Vec::new());
    drop(second);
    assert_eq!(bench.read(&file, 0, 4), [0; 4]);
}

pub fn a_file_opened_by_one_driver_serves_another_on_its_own_thread(bench: &mut Bench) {
    let file = bench.file("a", 8192);
    bench.write(&file, 4096, &pattern(4096, 10));
    let engine = bench.engine.clone();
    let read_there = move || {
        let mut driver = engine.driver(1).unwrap();
        driver.submit(Token(5), Op::Read { file, offset: 4096, buffers: IoBuf::zeroed(4096).into() });
        let mut out = Vec::new();
        while out.is_empty() {
            driver.poll(&mut out);
            let limit = driver.now() + Duration::from_secs(1);
            driver.park(Some(limit));
        }
        bytes_of(&out.remove(0).op.into_buffers())
    };
    let bytes = match bench.engine.world() {
        Some(_) => read_there(),
        None => spawn_pinned("other", None, read_there).unwrap().join().unwrap(),
    };
    assert!(bytes == pattern(4096, 10));
}
