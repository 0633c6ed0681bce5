//! Every limit that docs/bdevs.md names: kept at the limit, and one past it refused with the numbers.

use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_bdev::modules::null::{self, NullSpec};
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_bdev::modules::split::{self, SplitSpec};
use spindle_bdev::{Bdev, BdevError, Registry};
use spindle_block::{IoErrorKind, MAX_DEPTH};
use spindle_mem::IoBuf;

use crate::support::{malloc, simulated};

async fn null(registry: &Registry, block_size: u32, num_blocks: u64) -> Result<Bdev, BdevError> {
    let name = registry.next_name("N");
    null::create(registry, NullSpec { name, block_size, num_blocks, ..NullSpec::default() }).await
}

/// The message of a refusal.
fn refused<T: std::fmt::Debug>(result: Result<T, BdevError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn blocks_have_512_to_65536_bytes_and_a_bdev_one_byte_less_than_2_to_the_63() {
    simulated(async |registry| {
        for (size, past) in [(512, 256), (512, 511), (65536, 131_072)] {
            null(&registry, size, 1).await.unwrap();
            let message = refused(null(&registry, past, 1).await);
            assert!(message.contains(&past.to_string()) && message.contains("65536"), "{message}");
        }
        assert!(refused(null(&registry, 512, 0).await).contains("at least one block"));
        let most = (1_u64 << 63) / 512;
        null(&registry, 512, most - 1).await.unwrap();
        assert!(refused(null(&registry, 512, most).await).contains("2^63"));
    });
}

#[test]
fn a_request_may_reach_the_last_block_and_not_the_next() {
    simulated(async |registry| {
        let desc =
            malloc(&registry, "M0").await.descriptor(spindle_bdev::DescOptions::new().write(true)).unwrap();
        let channel = desc.channel().unwrap();
        channel.write(63 * 512, IoBuf::zeroed(512)).await.0.unwrap();
        let past = channel.write(63 * 512, IoBuf::zeroed(1024)).await.0.unwrap_err();
        assert_eq!(past.kind, IoErrorKind::OutOfRange);
        assert!(past.to_string().contains("32256") && past.to_string().contains("1024"), "{past}");
        let ragged = channel.write(1, IoBuf::zeroed(512)).await.0.unwrap_err();
        assert_eq!(ragged.kind, IoErrorKind::Unaligned);
    });
}

#[test]
fn eight_modules_may_lie_on_a_disk_and_not_nine() {
    simulated(async |registry| {
        let mut base = malloc(&registry, "M0").await.name().to_owned();
        for number in 0..MAX_DEPTH {
            let spec = PassthruSpec { name: format!("P{number}"), base, uuid: None };
            base = passthru::create(&registry, spec).await.unwrap().unwrap().name().to_owned();
        }
        let desc = Bdev::open(&base).unwrap();
        let channel = desc.channel().unwrap();
        channel.write(0, IoBuf::zeroed(512)).await.0.unwrap();
        // What the layer does for all of them counts as no module.
        channel.compare_and_write(0, IoBuf::zeroed(1024)).await.0.unwrap();
        channel.reset().await.unwrap();
        drop((channel, desc));
        let reader = registry.get(&base).unwrap().descriptor(Default::default()).unwrap();
        let mut pair = reader.queue_pair().unwrap();
        let io = pair.request(spindle_block::Operation::Read, 0, 1, IoBuf::zeroed(512));
        pair.submit(io);
        pair.wait().await;
        assert_eq!(pair.reap(|_, status| status.unwrap()), 1);
        drop((pair, reader));
        let spec = PassthruSpec { name: "P8".into(), base, uuid: None };
        let message = refused(passthru::create(&registry, spec).await);
        assert!(message.contains('9') && message.contains('8'), "{message}");
    });
}

#[test]
fn a_bdev_is_split_into_16384_parts_and_not_into_one_more() {
    simulated(async |registry| {
        let base = null(&registry, 512, 16_385).await.unwrap().name().to_owned();
        let spec = |count| SplitSpec { base: base.clone(), count, size_mib: 0 };
        let message = refused(split::create(&registry, spec(16_385)).await);
        assert!(message.contains("16385") && message.contains("16384"), "{message}");
        assert!(refused(split::create(&registry, spec(0)).await).contains("one or more"));
        assert_eq!(split::create(&registry, spec(16_384)).await.unwrap().len(), 16_384);
    });
}

#[test]
fn a_p99_latency_is_its_average_at_least_and_a_corruption_changes_at_least_one_bit() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        malloc(&registry, "M1").await;
        let spec =
            |p99| DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies: [5, p99, 0, 0] };
        assert!(refused(delay::create(&registry, spec(4)).await).contains("p99"));
        delay::create(&registry, spec(5)).await.unwrap().unwrap();
        error::create(&registry, ErrorSpec { base: "M1".into(), uuid: None }).await.unwrap().unwrap();
        let corrupt =
            |value| Injection { effect: Effect::CorruptData { offset: 0, value }, count: 1, queue_depth: 0 };
        assert!(refused(error::inject(&registry, "EE_M1", Target::All, corrupt(0))).contains("1 to 255"));
        error::inject(&registry, "EE_M1", Target::All, corrupt(1)).unwrap();
    });
}
