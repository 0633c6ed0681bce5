//! Bdevs that stand on others: made now or when the base comes, gone with it, one claim on the base.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::modules::error::{self, ErrorSpec};
use spindle_bdev::modules::null::{self, NullSpec};
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_bdev::modules::split::{self, SplitSpec};
use spindle_bdev::{Bdev, BdevError, DescOptions, Event, Registry, Uuid};
use spindle_block::IoErrorKind;
use spindle_mem::IoBuf;

use crate::support::{malloc, simulated};

fn passthru_spec(name: &str, base: &str) -> PassthruSpec {
    PassthruSpec { name: name.to_owned(), base: base.to_owned(), uuid: None }
}

async fn passthru(registry: &Registry, name: &str, base: &str) -> Option<Bdev> {
    passthru::create(registry, passthru_spec(name, base)).await.unwrap()
}

async fn cut(registry: &Registry, base: &str, count: u32, size_mib: u64) -> Result<Vec<Bdev>, BdevError> {
    split::create(registry, SplitSpec { base: base.to_owned(), count, size_mib }).await
}

fn names(bdevs: &[Bdev]) -> Vec<&str> {
    bdevs.iter().map(Bdev::name).collect()
}

#[test]
fn a_passthru_bdev_has_the_data_of_its_base_and_claims_it() {
    simulated(async |registry| {
        let base = malloc(&registry, "M0").await;
        let upper = passthru(&registry, "P0", "M0").await.unwrap();
        assert_eq!((upper.geometry(), upper.base()), (base.geometry(), Some(base.clone())));
        assert_eq!(base.info().claim.unwrap().module, "passthru");
        assert_eq!(Bdev::open("M0").unwrap_err().errno(), 1);
        let (over, under) = (Bdev::open("P0").unwrap(), DescOptions::new().open("M0").unwrap());
        let (over, under) = (over.channel().unwrap(), under.channel().unwrap());
        over.write(512, IoBuf::copy_from(&[7; 1024])).await.0.unwrap();
        let (read, data) = under.read(0, IoBuf::zeroed(2048)).await;
        read.unwrap();
        assert_eq!(data.to_vec(), [vec![0; 512], vec![7; 1024], vec![0; 512]].concat());
        passthru::delete(&registry, "P0").await.unwrap();
        assert_eq!(base.info().claim, None);
        Bdev::open("M0").unwrap();
    });
}

#[test]
fn the_uuid_of_a_passthru_bdev_follows_from_that_of_its_base() {
    simulated(async |registry| {
        let base = Uuid::from_u128(0x00000000_0000_4000_8000_000000000001);
        let spec = NullSpec {
            name: "N0".into(),
            uuid: Some(base),
            block_size: 512,
            num_blocks: 8,
            ..NullSpec::default()
        };
        null::create(&registry, spec).await.unwrap();
        let upper = passthru(&registry, "P0", "N0").await.unwrap();
        assert_eq!(upper.uuid().to_string(), "952eb00f-b706-56f9-9075-534948d1abb6");
    });
}

#[test]
fn a_saved_configuration_has_a_split_and_an_error_bdev_that_wait_for_their_base() {
    simulated(async |registry| {
        let saved = |registry: &Registry| -> Vec<&str> {
            registry.virtual_recipes().iter().map(|recipe| recipe.method).collect()
        };
        assert_eq!(cut(&registry, "M0", 2, 0).await.unwrap(), []);
        let waiting = ErrorSpec { base: "M1".into(), uuid: None };
        assert!(error::create(&registry, waiting).await.unwrap().is_none());
        malloc(&registry, "M2").await;
        passthru(&registry, "P0", "M2").await;
        let all = ["bdev_split_create", "bdev_error_create", "bdev_passthru_create"];
        assert_eq!(saved(&registry), all);
        malloc(&registry, "M1").await;
        malloc(&registry, "M0").await;
        assert_eq!(registry.open("M0p1", DescOptions::new()).unwrap().bdev().name(), "M0p1");
        assert_eq!(saved(&registry), all, "in the order of the requests, not of the bases");
        split::delete(&registry, "M0").await.unwrap();
        assert_eq!(saved(&registry), all[1..]);
        // Waits in vain: the base is taken when it comes.
        passthru(&registry, "P1", "M3").await;
        cut(&registry, "M3", 2, 0).await.unwrap();
        malloc(&registry, "M3").await;
        assert_eq!(saved(&registry), [&all[1..], &["bdev_passthru_create"]].concat());
    });
}

#[test]
fn what_stands_on_a_base_that_comes_later_is_there_when_it_is_registered_and_again_after_it_was_gone() {
    simulated(async |registry| {
        assert!(passthru(&registry, "P0", "later").await.is_none());
        assert!(passthru(&registry, "P1", "P0").await.is_none());
        assert!(matches!(
            passthru::create(&registry, passthru_spec("P0", "other")).await,
            Err(BdevError::AskedFor { .. })
        ));
        for _ in 0..3 {
            let base = malloc(&registry, "later").await;
            let upper = registry.get("P1").unwrap();
            assert_eq!(upper.base().unwrap().base(), Some(base.clone()));
            registry.unregister(&base).await.unwrap();
            assert!(registry.bdevs().is_empty(), "{registry:?}");
        }
        let base = malloc(&registry, "later").await;
        passthru::delete(&registry, "P0").await.unwrap();
        assert_eq!(names(&registry.bdevs()), ["later"]);
        registry.unregister(&base).await.unwrap();
        malloc(&registry, "later").await;
        assert_eq!(names(&registry.bdevs()), ["later"], "what was deleted does not come back");
    });
}

#[test]
fn a_creation_that_fails_leaves_the_base_free_and_no_name_taken() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        malloc(&registry, "M1").await;
        // The name is another bdev's.
        let refused = passthru::create(&registry, passthru_spec("M1", "M0")).await;
        assert_eq!(refused.unwrap_err().errno(), 17);
        let writer = Bdev::open("M0").unwrap();
        let refused = passthru::create(&registry, passthru_spec("P0", "M0")).await;
        assert_eq!(refused.unwrap_err().errno(), 1);
        drop(writer);
        // The third part's name is taken.
        malloc(&registry, "M0p2").await;
        assert_eq!(cut(&registry, "M0", 4, 0).await.unwrap_err().errno(), 17);
        assert_eq!(names(&registry.bdevs()), ["M0", "M1", "M0p2"]);
        assert_eq!(registry.get("M0").unwrap().descriptors(), 0);
        passthru(&registry, "P0", "M0").await.unwrap();
    });
}

#[test]
fn a_stack_that_is_too_deep_is_refused_where_it_is_made() {
    simulated(async |registry| {
        malloc(&registry, "P0").await;
        for depth in 1..=spindle_block::MAX_DEPTH {
            passthru(&registry, &format!("P{depth}"), &format!("P{}", depth - 1)).await.unwrap();
        }
        let refused = passthru::create(&registry, passthru_spec("P9", "P8")).await.unwrap_err();
        assert_eq!(refused.errno(), 22);
        assert!(refused.to_string().contains("at most 8"), "{refused}");
        let channel = Bdev::open("P8").unwrap().channel().unwrap();
        channel.read(0, IoBuf::zeroed(512)).await.0.unwrap();
    });
}

#[test]
fn a_base_that_grows_tells_the_openers_of_what_stands_on_it() {
    simulated(async |registry| {
        let spec = NullSpec { name: "N0".into(), block_size: 512, num_blocks: 8, ..NullSpec::default() };
        null::create(&registry, spec).await.unwrap();
        passthru(&registry, "P0", "N0").await.unwrap();
        let upper = passthru(&registry, "P1", "P0").await.unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let seen = told.clone();
        let on_event = move |event| {
            assert!(matches!(event, Event::Resize));
            seen.fetch_add(1, Ordering::Relaxed);
        };
        let desc = DescOptions::new().on_event(on_event).open("P1").unwrap();
        let channel = desc.channel().unwrap();
        null::resize(&registry, "N0", 16).await.unwrap();
        while told.load(Ordering::Relaxed) == 0 {
            spindle_reactor::yield_now().await;
        }
        assert_eq!((upper.num_blocks(), channel.geometry().blocks()), (16, 16));
        channel.read(15 * 512, IoBuf::zeroed(512)).await.0.unwrap();
        null::resize(&registry, "N0", 16).await.unwrap();
        for _ in 0..100 {
            spindle_reactor::yield_now().await;
        }
        assert_eq!(told.load(Ordering::Relaxed), 1, "once for a change, never without");
    });
}

#[test]
fn parts_cover_the_base_side_by_side_and_hold_one_claim_on_it() {
    simulated(async |registry| {
        let base = malloc(&registry, "M0").await;
        let parts = cut(&registry, "M0", 3, 0).await.unwrap();
        assert_eq!(names(&parts), ["M0p0", "M0p1", "M0p2"]);
        assert_eq!((parts[0].num_blocks(), base.descriptors()), (21, 1));
        for (number, part) in parts.iter().enumerate() {
            let channel = Bdev::open(part.name()).unwrap().channel().unwrap();
            let data = IoBuf::copy_from(&vec![number as u8 + 1; 21 * 512]);
            channel.write(0, data).await.0.unwrap();
            let (beyond, _) = channel.read(20 * 512, IoBuf::zeroed(1024)).await;
            assert_eq!(beyond.unwrap_err().kind, IoErrorKind::OutOfRange);
            channel.copy(10 * 512, 0, 512).await.unwrap();
        }
        let whole = DescOptions::new().open("M0").unwrap().channel().unwrap();
        let (read, data) = whole.read(0, IoBuf::zeroed(64 * 512)).await;
        read.unwrap();
        let expected = [vec![1; 21 * 512], vec![2; 21 * 512], vec![3; 21 * 512], vec![0; 512]].concat();
        assert!(data.to_vec() == expected, "each part its own blocks");
        // The claim ends with the last part.
        registry.delete("split", "M0p0").await.unwrap();
        registry.delete("split", "M0p2").await.unwrap();
        assert!(base.info().claim.is_some());
        registry.delete("split", "M0p1").await.unwrap();
        assert!(base.info().claim.is_none());
        cut(&registry, "M0", 64, 0).await.unwrap();
        split::delete(&registry, "M0").await.unwrap();
        assert_eq!(split::delete(&registry, "M0").await.unwrap_err().errno(), 2);
    });
}

#[test]
fn a_split_that_makes_no_parts_is_refused_with_the_numbers() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        for (count, size_mib, says) in
            [(0, 0, "no parts"), (65, 0, "64 blocks"), (1, 1, "parts of 1 MiB"), (1, u64::MAX, "MiB")]
        {
            let refused = cut(&registry, "M0", count, size_mib).await.unwrap_err();
            assert!(refused.errno() == 22 && refused.to_string().contains(says), "{refused}");
        }
        assert_eq!(cut(&registry, "M0", 64, 0).await.unwrap().len(), 64);
    });
}

#[test]
fn a_base_goes_with_all_that_stands_on_it_while_each_level_is_in_use() {
    simulated(async |registry| {
        let base = malloc(&registry, "M0").await;
        cut(&registry, "M0", 2, 0).await.unwrap();
        passthru(&registry, "P0", "M0p0").await.unwrap();
        passthru(&registry, "P1", "M0p1").await.unwrap();
        let desc = Bdev::open("P0").unwrap();
        let channel = desc.channel().unwrap();
        // Several ask for removals of several levels at once.
        let (both, again) = (registry.clone(), registry.clone());
        let one = spindle_reactor::spawn_local(async move { both.delete("malloc", "M0").await });
        let two = spindle_reactor::spawn_local(async move { passthru::delete(&again, "P1").await });
        one.await.unwrap().unwrap();
        two.await.unwrap().unwrap();
        base.removed().await;
        assert!(registry.bdevs().is_empty(), "{registry:?}");
        let (read, _) = channel.read(0, IoBuf::zeroed(512)).await;
        assert_eq!(read.unwrap_err().kind, IoErrorKind::Removed);
    });
}

#[test]
fn whatever_waits_for_its_base_is_saved_and_can_be_cancelled_by_its_name() {
    simulated(async |registry| {
        passthru(&registry, "P0", "later").await;
        let (uuid, latencies) = (Some(Uuid::from_u128(7)), [1, 2, 3, 4]);
        let spec = DelaySpec { name: "D0".into(), base: "later1".into(), uuid, latencies };
        delay::create(&registry, spec).await.unwrap();
        error::create(&registry, ErrorSpec { base: "later2".into(), uuid: None }).await.unwrap();
        cut(&registry, "later3", 2, 0).await.unwrap();
        let saved = registry.virtual_recipes();
        let methods: Vec<&str> = saved.iter().map(|recipe| recipe.method).collect();
        assert_eq!(
            methods,
            ["bdev_passthru_create", "bdev_delay_create", "bdev_error_create", "bdev_split_create"]
        );
        assert_eq!(saved[0].params.get("base_bdev_name"), Some(&"later".into()));
        assert_eq!(saved[1].params.get("p99_write_latency"), Some(&4_u64.into()));
        // Another module's bdev may have the name.
        malloc(&registry, "P0").await;
        for refused in [delay::delete(&registry, "P0").await, passthru::delete(&registry, "later").await] {
            assert_eq!(refused.unwrap_err().errno(), 19);
        }
        passthru::delete(&registry, "P0").await.unwrap();
        delay::delete(&registry, "D0").await.unwrap();
        error::delete(&registry, "EE_later2").await.unwrap();
        split::delete(&registry, "later3").await.unwrap();
        assert!(registry.virtual_recipes().is_empty());
        assert_eq!(passthru::delete(&registry, "P0").await.unwrap_err().errno(), 19);
        for base in ["later", "later1", "later2", "later3"] {
            malloc(&registry, base).await;
        }
        assert_eq!(registry.bdevs().len(), 5, "{registry:?}");
    });
}

#[test]
fn a_virtual_bdev_that_waits_for_its_base_is_not_called_a_bdev_that_has_the_name() {
    simulated(async |registry| {
        let base = malloc(&registry, "M0").await;
        let upper = passthru(&registry, "P0", "M0").await.unwrap();
        registry.unregister(&upper).await.unwrap();
        passthru(&registry, "P1", "later").await;
        for (name, below) in [("P0", "M0"), ("P1", "later")] {
            let refused = passthru::create(&registry, passthru_spec(name, below)).await.unwrap_err();
            assert_eq!(refused.errno(), 17);
            let said = format!(
                "module passthru already has a request for {name:?}, which waits for base {below:?}; \
                 delete it with bdev_passthru_delete first"
            );
            assert_eq!(refused.to_string(), said);
            passthru::delete(&registry, name).await.unwrap();
            passthru::create(&registry, passthru_spec(name, below)).await.unwrap();
            passthru::delete(&registry, name).await.unwrap();
        }
        assert_eq!(registry.bdevs(), [base]);
    });
}
