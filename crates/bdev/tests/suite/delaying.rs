//! The delay module: times that requests take, changed and cut short.

use std::time::Duration;

use spindle_bdev::modules::delay::{self, DelaySpec, Latency};
use spindle_bdev::{Bdev, Registry};
use spindle_block::{Channel, IoErrorKind, Operation};
use spindle_mem::IoBuf;
use spindle_reactor::now;

use crate::support::{malloc, simulated};

/// A delay bdev D0 on M0; the times in microseconds.
async fn delayed(registry: &Registry, latencies: [u64; 4]) -> Channel {
    malloc(registry, "M0").await;
    let spec = DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies };
    delay::create(registry, spec).await.unwrap().unwrap();
    Bdev::open("D0").unwrap().channel().unwrap()
}

async fn time_of_read(channel: &Channel) -> Duration {
    let before = now();
    channel.read(0, IoBuf::zeroed(512)).await.0.unwrap();
    now() - before
}

#[test]
fn a_read_takes_its_time_and_one_in_a_hundred_the_longer_one() {
    simulated(async |registry| {
        let channel = delayed(&registry, [100, 5000, 0, 0]).await;
        let (mut short, mut long) = (0, 0);
        for _ in 0..2000 {
            match time_of_read(&channel).await {
                took if took >= Duration::from_micros(5000) => long += 1,
                took if took >= Duration::from_micros(100) => short += 1,
                took => panic!("a read took {took:?}"),
            }
        }
        assert!((10..=40).contains(&long) && short + long == 2000, "{short} short, {long} long");
        let before = now();
        channel.write(0, IoBuf::zeroed(512)).await.0.unwrap();
        channel.flush().await.unwrap();
        assert!(now() - before < Duration::from_micros(100), "what has no time is not held");
    });
}

#[test]
fn a_time_that_is_changed_counts_for_what_comes_back_later() {
    simulated(async |registry| {
        let channel = delayed(&registry, [100, 100, 100, 100]).await;
        delay::update(&registry, "D0", Latency::AvgRead, 3000).unwrap();
        delay::update(&registry, "D0", Latency::P99Read, 3000).unwrap();
        assert!(time_of_read(&channel).await >= Duration::from_micros(3000));
        delay::update(&registry, "D0", Latency::AvgRead, 0).unwrap();
        delay::update(&registry, "D0", Latency::P99Read, 0).unwrap();
        assert!(time_of_read(&channel).await < Duration::from_micros(100));
        assert_eq!(delay::update(&registry, "M0", Latency::AvgRead, 1).unwrap_err().errno(), 19);
        let spec = DelaySpec { name: "D1".into(), base: "D0".into(), uuid: None, latencies: [2, 1, 0, 0] };
        assert_eq!(delay::create(&registry, spec).await.unwrap_err().errno(), 22);
    });
}

#[test]
fn what_is_held_ends_at_once_when_it_is_aborted_when_the_device_is_reset_and_when_it_is_removed() {
    simulated(async |registry| {
        let hour = 3600 * 1_000_000;
        drop(delayed(&registry, [hour; 4]).await);
        let before = now();
        let mut pair = Bdev::open("D0").unwrap().queue_pair().unwrap();
        for start in 0..3 {
            let io = pair.request(Operation::Read, start, 1, IoBuf::zeroed(512));
            pair.submit(io);
        }
        assert_eq!(pair.reap(|_, _| {}), 0);
        let io = pair.request(Operation::Write, 9, 1, IoBuf::zeroed(512));
        let id = io.id();
        pair.submit(io);
        pair.reap(|_, _| {});
        pair.abort(id);
        pair.reap(|io, status| assert!(io.id() == id && status == Err(IoErrorKind::Aborted)));
        let reset = pair.request(Operation::Reset, 0, 0, spindle_mem::Buffers::None);
        pair.submit(reset);
        let mut ended = 0;
        while ended < 4 {
            pair.wait().await;
            ended += pair.reap(|io, status| match io.operation() {
                Operation::Reset => assert_eq!(status, Ok(())),
                _ => assert_eq!(status, Err(IoErrorKind::Aborted)),
            });
        }
        let io = pair.request(Operation::Read, 0, 1, IoBuf::zeroed(512));
        pair.submit(io);
        pair.reap(|_, _| {});
        delay::delete(&registry, "D0").await.unwrap();
        pair.wait().await;
        assert_eq!(pair.reap(|_, status| assert_eq!(status, Ok(()))), 1);
        assert!(now() - before < Duration::from_secs(1));
    });
}
