//! The error module: what is injected happens to so many requests of its kind, and to no other.

use std::task::Poll;
use std::time::Duration;

use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_bdev::{Bdev, DescOptions, Registry};
use spindle_block::{Channel, IoErrorKind, Operation, QueuePair};
use spindle_mem::IoBuf;
use spindle_reactor::now;

use crate::support::{malloc, simulated};

const EIO: IoErrorKind = IoErrorKind::Device { errno: 5 };

/// An error bdev EE_M0 on M0.
async fn with_errors(registry: &Registry) -> Channel {
    malloc(registry, "M0").await;
    error::create(registry, ErrorSpec { base: "M0".into(), uuid: None }).await.unwrap().unwrap();
    Bdev::open("EE_M0").unwrap().channel().unwrap()
}

fn inject(registry: &Registry, operation: Operation, effect: Effect, count: u32) {
    let injection = Injection { effect, count, queue_depth: 0 };
    error::inject(registry, "EE_M0", Target::One(operation), injection).unwrap();
}

async fn read(channel: &Channel) -> Result<Vec<u8>, IoErrorKind> {
    let (result, data) = channel.read(0, IoBuf::zeroed(1024)).await;
    result.map(|()| data.to_vec()).map_err(|error| error.kind)
}

fn submit(pair: &mut QueuePair, operation: Operation, start: u64) {
    let io = pair.request(operation, start, 1, IoBuf::zeroed(512));
    pair.submit(io);
}

#[test]
fn so_many_requests_of_one_kind_fail_and_later_ones_do_not() {
    simulated(async |registry| {
        let channel = with_errors(&registry).await;
        inject(&registry, Operation::Read, Effect::Failure, 2);
        inject(&registry, Operation::Flush, Effect::NvmeFailure { sct: 2, sc: 0x81 }, 1);
        channel.write(0, IoBuf::copy_from(&[3; 1024])).await.0.unwrap();
        channel.unmap(4096, 512).await.unwrap();
        assert_eq!(channel.flush().await.unwrap_err().kind, IoErrorKind::Protocol(0x281));
        channel.flush().await.unwrap();
        assert_eq!([read(&channel).await, read(&channel).await], [Err(EIO), Err(EIO)]);
        assert_eq!(read(&channel).await.unwrap(), [3; 1024]);
        // Each kind counts for itself, and what is cleared does not happen.
        let all = Injection { effect: Effect::Failure, count: 1, queue_depth: 0 };
        error::inject(&registry, "EE_M0", Target::All, all).unwrap();
        assert_eq!(read(&channel).await, Err(EIO));
        assert_eq!(channel.unmap(0, 512).await.unwrap_err().kind, EIO);
        error::clear(&registry, "EE_M0").unwrap();
        channel.flush().await.unwrap();
        let refused = error::inject(&registry, "EE_M0", Target::One(Operation::Reset), all);
        assert_eq!(refused.unwrap_err().errno(), 22);
        assert_eq!(error::inject(&registry, "M0", Target::All, all).unwrap_err().errno(), 19);
    });
}

#[test]
fn corrupted_data_differs_in_one_byte_and_the_writer_keeps_its_own() {
    simulated(async |registry| {
        let channel = with_errors(&registry).await;
        let corrupt = |offset| Effect::CorruptData { offset, value: 0xf0 };
        inject(&registry, Operation::Write, corrupt(700), 1);
        let parts = vec![IoBuf::copy_from(&[1; 512]), IoBuf::copy_from(&[2; 512])];
        let (result, given) = channel.write(512, parts).await;
        result.unwrap();
        let own = [[1; 512], [2; 512]].concat();
        assert!(given.to_vec() == own, "the writer's data is as it was");
        let base = DescOptions::new().open("M0").unwrap().channel().unwrap();
        let mut expected = own.clone();
        expected[700] = 2 ^ 0xf0;
        assert!(base.read(512, IoBuf::zeroed(1024)).await.1.to_vec() == expected, "where it was meant to go");
        inject(&registry, Operation::Read, corrupt(1023), 1);
        let mut expected = vec![0; 512];
        expected.extend([1; 511]);
        expected.push(1 ^ 0xf0);
        assert!(read(&channel).await.unwrap() == expected);
        assert_eq!(read(&channel).await.unwrap()[1023], 1);
        // Behind the end of the request nothing is changed.
        inject(&registry, Operation::Read, corrupt(1024), 1);
        assert_eq!(read(&channel).await.unwrap()[1023], 1);
        let nothing =
            Injection { effect: Effect::CorruptData { offset: 0, value: 0 }, count: 1, queue_depth: 0 };
        assert_eq!(error::inject(&registry, "EE_M0", Target::All, nothing).unwrap_err().errno(), 22);
    });
}

#[test]
fn what_waits_goes_on_when_it_is_resumed_and_ends_when_it_is_aborted_reset_or_removed() {
    simulated(async |registry| {
        drop(with_errors(&registry).await);
        let mut pair = Bdev::open("EE_M0").unwrap().queue_pair().unwrap();
        inject(&registry, Operation::Read, Effect::Pending, 100);
        submit(&mut pair, Operation::Read, 0);
        submit(&mut pair, Operation::Write, 0);
        pair.wait().await;
        assert_eq!(pair.reap(|io, _| assert_eq!(io.operation(), Operation::Write)), 1);
        error::resume(&registry, "EE_M0").await.unwrap();
        submit(&mut pair, Operation::Read, 1);
        while pair.outstanding() > 0 {
            pair.wait().await;
            pair.reap(|_, status| assert_eq!(status, Ok(()), "nothing waits any more"));
        }
        for end in 0..3 {
            inject(&registry, Operation::Read, Effect::Pending, 1);
            let io = pair.request(Operation::Read, 3, 1, IoBuf::zeroed(512));
            let id = io.id();
            pair.submit(io);
            assert_eq!(pair.reap(|_, _| {}), 0);
            match end {
                0 => pair.abort(id),
                1 => {
                    let reset = pair.request(Operation::Reset, 0, 0, spindle_mem::Buffers::None);
                    pair.submit(reset);
                }
                _ => error::delete(&registry, "EE_M0").await.unwrap(),
            }
            while pair.outstanding() > 0 {
                pair.wait().await;
                pair.reap(|io, status| match io.operation() {
                    Operation::Reset => assert_eq!(status, Ok(())),
                    _ => assert_eq!(status, Err(IoErrorKind::Aborted)),
                });
            }
        }
    });
}

#[test]
fn a_request_that_finds_no_memory_waits_in_order_and_is_tried_again() {
    simulated(async |registry| {
        let channel = with_errors(&registry).await;
        inject(&registry, Operation::Read, Effect::NoMemory, 3);
        let before = now();
        read(&channel).await.unwrap();
        assert!(
            now() - before >= Duration::from_millis(30),
            "tried again every 10 ms when nothing else ends"
        );
        // One that waits does not keep the bdev from going.
        inject(&registry, Operation::Read, Effect::NoMemory, u32::MAX);
        let mut waiting = Box::pin(channel.read(0, IoBuf::zeroed(512)));
        let first = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        assert!(first);
        error::delete(&registry, "EE_M0").await.unwrap();
        assert_eq!(waiting.await.0.unwrap_err().kind, IoErrorKind::Removed);
    });
}

#[test]
fn an_injection_for_a_queue_depth_leaves_what_comes_to_a_shorter_queue_alone() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        // A base that takes its time, so that requests are on their way together.
        let base = DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies: [10; 4] };
        delay::create(&registry, base).await.unwrap();
        error::create(&registry, ErrorSpec { base: "D0".into(), uuid: None }).await.unwrap();
        let channel = Bdev::open("EE_D0").unwrap().channel().unwrap();
        let deep = Injection { effect: Effect::Failure, count: 1, queue_depth: 2 };
        error::inject(&registry, "EE_D0", Target::One(Operation::Read), deep).unwrap();
        for _ in 0..10 {
            read(&channel).await.unwrap();
        }
        let mut pair = Bdev::open("EE_D0").unwrap().queue_pair().unwrap();
        (0..3).for_each(|start| submit(&mut pair, Operation::Read, start));
        let mut failed = Vec::new();
        while pair.outstanding() > 0 {
            pair.wait().await;
            pair.reap(|io, status| failed.extend(status.err().map(|kind| (io.start(), kind))));
        }
        assert_eq!(failed, [(2, EIO)]);
    });
}
