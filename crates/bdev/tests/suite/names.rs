//! One namespace of names, aliases and UUIDs.

use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_bdev::modules::null::{self, NullSpec};
use spindle_bdev::{Bdev, BdevError, Detail, IoType, NotificationKind, Registry, Uuid};
use spindle_mem::IoBuf;

use crate::support::{malloc, simulated, thread};

fn null(name: &str) -> NullSpec {
    NullSpec { name: name.to_owned(), block_size: 512, num_blocks: 8, ..NullSpec::default() }
}

#[test]
fn a_bdev_is_found_by_name_alias_and_uuid_and_read_back_through_each() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        bdev.add_alias("lvs/vol").unwrap();
        let written =
            Bdev::open("M0").unwrap().channel().unwrap().write(512, IoBuf::copy_from(&[7; 512])).await;
        written.0.unwrap();
        for name in ["M0".to_owned(), "lvs/vol".to_owned(), bdev.uuid().to_string()] {
            let desc = Bdev::open(&name).unwrap();
            let (read, buffers) = desc.channel().unwrap().read(512, IoBuf::zeroed(512)).await;
            read.unwrap();
            assert_eq!(buffers.to_vec(), [7; 512], "by {name}");
        }
        let upper = bdev.uuid().to_string().to_uppercase();
        assert!(matches!(Bdev::open(&upper), Err(BdevError::NoSuchBdev { .. })), "UUIDs are in lower case");
    });
}

#[test]
fn no_name_alias_or_uuid_is_given_twice_and_a_refused_one_leaves_nothing() {
    simulated(async |registry| {
        let first = malloc(&registry, "M0").await;
        first.add_alias("other").unwrap();
        let uuid = first.uuid();
        for taken in ["M0".to_owned(), "other".to_owned(), uuid.to_string()] {
            let refused = null::create(&registry, null(&taken)).await.unwrap_err();
            assert_eq!(refused.errno(), 17, "{refused}");
            assert!(refused.to_string().contains("M0"), "{refused}");
            assert_eq!(first.add_alias(&taken).unwrap_err().errno(), 17);
        }
        let same = NullSpec { uuid: Some(uuid), ..null("N0") };
        assert_eq!(null::create(&registry, same).await.unwrap_err().errno(), 17);
        assert!(registry.get("N0").is_err(), "a UUID that is taken has not left the name behind");
        assert_eq!(null::create(&registry, null("")).await.unwrap_err().errno(), 22);
        // One whose name is its UUID has no alias of it.
        let own = Uuid::from_u128(0x1234);
        let spec = NullSpec { uuid: Some(own), ..null(&own.to_string()) };
        assert!(null::create(&registry, spec).await.unwrap().aliases().is_empty());
    });
}

#[test]
fn odd_names_are_names_like_others() {
    simulated(async |registry| {
        let long = "n".repeat(4096);
        for name in ["a/b", "quote\"q", "line\nline", "apostrophe'", " ", "\u{fc}\u{0}", &long] {
            null::create(&registry, null(name)).await.unwrap();
            assert_eq!(registry.get(name).unwrap().name(), name);
        }
    });
}

#[test]
fn renaming_an_alias_shows_one_of_both_and_refuses_what_is_taken() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        bdev.add_alias("lvs/a").unwrap();
        malloc(&registry, "M1").await.add_alias("lvs/taken").unwrap();
        bdev.rename_alias("lvs/a", "lvs/b").unwrap();
        assert!(registry.get("lvs/a").is_err());
        assert_eq!(registry.get("lvs/b").unwrap(), bdev);
        for (from, to, errno) in
            [("lvs/b", "lvs/taken", 17), ("lvs/b", "lvs/b", 17), ("lvs/a", "x", 19), ("lvs/b", "", 22)]
        {
            assert_eq!(bdev.rename_alias(from, to).unwrap_err().errno(), errno, "{from} to {to}");
        }
        assert_eq!(registry.get("lvs/b").unwrap(), bdev, "a refusal has changed nothing");
    });
}

#[test]
fn names_that_were_not_given_count_up_and_pass_over_taken_ones() {
    simulated(async |registry| {
        malloc(&registry, "Malloc1").await;
        let spec = MallocSpec { block_size: 4096, num_blocks: 2, ..MallocSpec::default() };
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(malloc::create(&registry, spec.clone()).await.unwrap().name().to_owned());
        }
        assert_eq!(names, ["Malloc0", "Malloc2", "Malloc3"]);
    });
}

#[test]
fn sizes_that_no_disk_has_are_refused_with_the_numbers() {
    simulated(async |registry| {
        for (block_size, num_blocks) in
            [(0, 8), (511, 8), (520, 8), (512, 0), (131_072, 8), (512, u64::MAX), (512, 1 << 55)]
        {
            let spec = MallocSpec { block_size, num_blocks, ..MallocSpec::default() };
            let refused = malloc::create(&registry, spec).await.unwrap_err();
            assert!([22, 12].contains(&refused.errno()), "{refused}");
        }
        let refused =
            MallocSpec { block_size: 512, num_blocks: 8, physical_block_size: 1000, ..MallocSpec::default() };
        assert_eq!(malloc::create(&registry, refused).await.unwrap_err().errno(), 22);
    });
}

#[test]
fn a_physical_block_smaller_than_a_block_is_shown_and_has_no_effect() {
    simulated(async |registry| {
        let (block_size, num_blocks, physical_block_size) = (4096, 8, 512);
        let spec = MallocSpec { block_size, num_blocks, physical_block_size, ..MallocSpec::default() };
        let ram = malloc::create(&registry, spec).await.unwrap();
        let name = "N0".to_owned();
        let spec = NullSpec { name, block_size, num_blocks, physical_block_size, ..NullSpec::default() };
        let null = null::create(&registry, spec).await.unwrap();
        for bdev in [ram, null] {
            let recipe = bdev.disk().recipe(&bdev).unwrap();
            assert_eq!(recipe.params.get("physical_block_size"), Some(&Detail::Number(512)));
            assert_eq!(bdev.geometry().atomic_unit(), 4096);
        }
    });
}

#[test]
fn opening_and_closing_work_on_any_thread_and_without_the_app_thread() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        let workers = ["one", "two"].map(thread);
        for worker in &workers {
            let opened = worker.run(async || {
                let desc = Bdev::open("M0").unwrap();
                // Moved to another thread and dropped there, it is closed too.
                assert_eq!(desc.bdev().descriptors(), 1);
                desc
            });
            let desc = opened.await.unwrap();
            let bdev = desc.bdev();
            drop(desc);
            assert_eq!(bdev.descriptors(), 0);
        }
        workers.iter().for_each(|worker| worker.exit());
    });
}

#[test]
fn a_plain_os_thread_or_a_runtime_without_a_registry_gets_an_error_that_says_so() {
    let refused = Bdev::open("M0").unwrap_err();
    assert_eq!(refused.errno(), 95, "{refused}");
    let runtime =
        spindle_reactor::Runtime::builder().engine(spindle_reactor::EngineKind::Sim(1)).build().unwrap();
    let refused = runtime.run(async || Bdev::open("M0").unwrap_err().to_string()).unwrap();
    assert!(refused.contains("Registry::start"), "{refused}");
}

#[test]
fn two_runtimes_have_registries_of_their_own() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        let other = std::thread::Builder::new();
        let other = other.spawn(|| simulated(async |registry| assert!(registry.bdevs().is_empty())));
        other.unwrap().join().unwrap();
    });
}

#[test]
fn the_log_has_what_came_and_went_in_order() {
    simulated(async |registry| {
        let bdev = malloc(&registry, "M0").await;
        registry.wait_for_examine().await;
        bdev.resized();
        registry.unregister(&bdev).await.unwrap();
        let log: Vec<_> = registry.notifications(0, 10).into_iter().map(|n| (n.id, n.kind, n.name)).collect();
        use NotificationKind::{Register, Resize, Unregister};
        let expected =
            [(0, Register), (1, Resize), (2, Unregister)].map(|(id, kind)| (id, kind, "M0".to_owned()));
        assert_eq!(log, expected);
    });
}

#[test]
fn what_a_bdev_is_shows_in_its_info() {
    simulated(async |registry: Registry| {
        let bdev = malloc(&registry, "M0").await;
        let info = bdev.info();
        assert_eq!((info.name.as_str(), info.product_name, info.module), ("M0", "Malloc disk", "malloc"));
        assert_eq!(info.aliases, [bdev.uuid().to_string()]);
        assert_eq!((info.geometry.block_size(), info.geometry.blocks()), (512, 64));
        assert!(info.io_types.contains(IoType::Unmap) && !info.io_types.contains(IoType::NvmeIo));
        assert!(info.claim.is_none() && info.descriptors == 0);
        assert_eq!(bdev.details().await.unwrap(), spindle_bdev::Detail::none());
        let other = registry.of_module("null", "M0").unwrap_err();
        assert_eq!(other.errno(), 19, "{other}");
    });
}

#[test]
fn requests_are_counted_from_the_registration_on_by_device_and_by_thread() {
    simulated(async |registry: Registry| {
        let bdev = malloc(&registry, "M0").await;
        registry.wait_for_examine().await;
        let desc = Bdev::open("M0").unwrap();
        let channel = desc.channel().unwrap();
        channel.write(0, IoBuf::zeroed(1024)).await.0.unwrap();
        channel.read(0, IoBuf::zeroed(512)).await.0.unwrap();
        channel.read(0, IoBuf::zeroed(512)).await.0.unwrap();
        let counted = bdev.statistics();
        assert_eq!((counted.read.operations, counted.read.bytes), (2, 1024));
        assert_eq!((counted.write.operations, counted.write.bytes, counted.in_flight), (1, 1024, 0));
        let threads = bdev.thread_statistics();
        assert_eq!(threads.len(), 1);
        assert_eq!((threads[0].0.name(), threads[0].1.read.operations), ("app_thread", 2));
        drop(channel);
        assert_eq!(bdev.statistics().read.operations, 2, "what closed lanes counted stays");
        bdev.reset_statistics(spindle_block::StatisticsReset::All).await;
        assert_eq!(bdev.statistics().read.operations, 0);
    });
}

#[test]
fn what_a_bdev_supports_is_what_its_device_does() {
    simulated(async |registry: Registry| {
        let types = malloc(&registry, "M0").await.io_types();
        for yes in [IoType::Compare, IoType::Copy, IoType::Reset, IoType::Abort, IoType::WriteZeroes] {
            assert!(types.contains(yes), "{}", yes.name());
        }
        assert!(!types.contains(IoType::SeekHole) && !types.contains(IoType::Zcopy));
        let desc = spindle_bdev::DescOptions::new().open("M0").unwrap();
        let channel = desc.channel().unwrap();
        assert!(channel.compare(0, IoBuf::zeroed(512)).await.0.is_ok(), "comparing changes nothing");
        assert_eq!(channel.copy(512, 0, 512).await.unwrap_err().kind, spindle_block::IoErrorKind::ReadOnly);
    });
}
