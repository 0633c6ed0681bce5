//! Bdevs on several bases: made when all are there, removed in two phases with the first that goes.

use std::sync::Arc;
use std::time::Duration;

use spindle_bdev::conformance::{self, Contents};
use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::{Bdev, DescOptions, Registry};
use spindle_block::{Geometry, IoErrorKind};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Thread, now, spawn_local, yield_now};

use crate::support::{malloc, on, simulated, thread};
use crate::{mirror, silent};

async fn mirrored(registry: &Registry) -> Bdev {
    malloc(registry, "M0").await;
    malloc(registry, "M1").await;
    mirror::create(registry, "R0", &["M0", "M1"]).await.unwrap().unwrap()
}

fn names(registry: &Registry) -> Vec<String> {
    registry.bdevs().iter().map(|bdev| bdev.name().to_owned()).collect()
}

#[test]
fn a_bdev_on_two_bases_conforms() {
    for kind in (1..=8).map(EngineKind::Sim).chain([EngineKind::Auto]) {
        on(kind, async |registry| {
            let bdev = mirrored(&registry).await;
            conformance::check(&bdev, Contents::Kept).await.unwrap();
            for base in ["M0", "M1"] {
                assert_eq!(registry.get(base).unwrap().descriptors(), 0, "{base} is free again");
            }
        });
    }
}

#[test]
fn a_bdev_on_two_bases_holds_both_and_writes_to_both() {
    simulated(async |registry| {
        let bdev = mirrored(&registry).await;
        let bases: Vec<String> = bdev.bases().iter().map(|base| base.name().to_owned()).collect();
        assert_eq!(bases, ["M0", "M1"]);
        Bdev::open("R0").unwrap().channel().unwrap().write(512, IoBuf::copy_from(&[7; 512])).await.0.unwrap();
        for base in ["M0", "M1"] {
            assert_eq!(Bdev::open(base).unwrap_err().errno(), 1, "{base} is claimed");
            let channel = DescOptions::new().open(base).unwrap().channel().unwrap();
            let (read, data) = channel.read(512, IoBuf::zeroed(512)).await;
            read.unwrap();
            assert_eq!(data.to_vec(), [7; 512]);
        }
        registry.delete_virtual(mirror::MODULE, "R0").await.unwrap();
        assert_eq!(names(&registry), ["M0", "M1"]);
        Bdev::open("M0").unwrap();
        Bdev::open("M1").unwrap();
    });
}

#[test]
fn a_bdev_on_two_bases_comes_with_the_last_of_them_and_goes_with_the_first() {
    simulated(async |registry| {
        assert!(mirror::create(&registry, "R0", &["M0", "M1"]).await.unwrap().is_none());
        let recipes: Vec<&str> = registry.virtual_recipes().iter().map(|recipe| recipe.method).collect();
        assert_eq!(recipes, ["bdev_mirror_create"], "it is saved while it waits");
        for (first, last) in [("M0", "M1"), ("M1", "M0"), ("M0", "M1")] {
            malloc(&registry, first).await;
            assert_eq!(names(&registry), [first]);
            let again = mirror::create(&registry, "R0", &["M0", "M1"]).await.unwrap_err();
            assert!(again.to_string().contains(&format!("waits for base {last:?}")), "{again}");
            let base = malloc(&registry, last).await;
            assert_eq!(names(&registry), [first, last, "R0"]);
            registry.unregister(&base).await.unwrap();
            assert_eq!(names(&registry), [first], "the mirror is gone before its base is");
            let other = registry.get(first).unwrap();
            assert_eq!(other.descriptors(), 0, "and the other base is free");
            registry.unregister(&other).await.unwrap();
        }
    });
}

#[test]
fn a_bdev_that_cannot_have_all_its_bases_leaves_the_others_free() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        malloc(&registry, "M1").await;
        let writer = Bdev::open("M1").unwrap();
        assert_eq!(mirror::create(&registry, "R0", &["M0", "M1"]).await.unwrap_err().errno(), 1);
        drop(writer);
        let twice = mirror::create(&registry, "R0", &["M0", "M0"]).await.unwrap_err();
        assert!(twice.to_string().contains("\"M0\" is named twice"), "{twice}");
        assert_eq!(registry.get("M0").unwrap().descriptors(), 0);
        assert_eq!(names(&registry), ["M0", "M1"]);
        mirror::create(&registry, "R0", &["M0", "M1"]).await.unwrap().unwrap();
    });
}

/// Writes from a thread until that fails; tells how.
fn load(worker: &Thread, bdev: &str) -> impl Future<Output = IoErrorKind> + use<> {
    let desc = Arc::new(Bdev::open(bdev).unwrap());
    let running = worker.spawn(async move || {
        let channel = desc.channel().unwrap();
        loop {
            match channel.write(512, IoBuf::zeroed(1024)).await.0 {
                Ok(()) => yield_now().await,
                Err(error) => return error.kind,
            }
        }
    });
    async move { running.await.unwrap() }
}

#[test]
fn a_bdev_on_two_bases_is_removed_under_load_by_a_deletion_and_with_either_base() {
    for seed in 1..=8 {
        on(EngineKind::Sim(seed), async |registry| {
            for goes in ["R0", "M0", "M1"] {
                let bdev = mirrored(&registry).await;
                let workers = ["one", "two"].map(thread);
                let loads: Vec<_> = workers.iter().map(|worker| load(worker, "R0")).collect();
                while lanes(&bdev) < 2 {
                    yield_now().await;
                }
                registry.unregister(&registry.get(goes).unwrap()).await.unwrap();
                for ended in loads {
                    let kind = ended.await;
                    assert!(matches!(kind, IoErrorKind::Removed | IoErrorKind::Aborted), "{kind:?}");
                }
                assert!(registry.get("R0").is_err());
                for left in registry.bdevs() {
                    assert_eq!(left.descriptors(), 0, "{left:?}");
                    registry.unregister(&left).await.unwrap();
                }
                let _waited = registry.delete_virtual(mirror::MODULE, "R0").await;
                workers.iter().for_each(Thread::exit);
            }
        });
    }
}

/// Threads that have it open.
fn lanes(bdev: &Bdev) -> usize {
    bdev.disk().device().state().unwrap().lanes()
}

#[test]
fn a_base_goes_although_another_base_keeps_what_the_bdev_has_there() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        let shape = Geometry::new(512, 64).unwrap();
        let (keeps, silent) = silent::create(&registry, "S0", shape).await;
        mirror::create(&registry, "R0", &["M0", "S0"]).await.unwrap().unwrap();
        let desc = Bdev::open("R0").unwrap();
        let channel = desc.channel().unwrap();
        let write = spawn_local(async move { channel.write(0, IoBuf::zeroed(512)).await.0 });
        while keeps.kept() == 0 {
            yield_now().await;
        }
        // Deaf: it ends nothing before it is told to.
        let removing = (registry.clone(), registry.get("M0").unwrap());
        let removal = spawn_local(async move { removing.0.unregister(&removing.1).await });
        for _ in 0..100 {
            yield_now().await;
        }
        let late = desc.channel().unwrap().read(0, IoBuf::zeroed(512)).await.0.unwrap_err();
        assert_eq!(late.kind, IoErrorKind::Removed, "it takes no request while it waits");
        assert!(registry.get("M0").is_ok(), "its base waits for it");
        keeps.answer().await;
        removal.await.unwrap().unwrap();
        write.await.unwrap().unwrap();
        assert_eq!((names(&registry), silent.descriptors()), (vec!["S0".to_owned()], 0));
    });
}

#[test]
fn a_base_that_goes_ends_what_another_base_holds_back() {
    simulated(async |registry| {
        malloc(&registry, "M0").await;
        malloc(&registry, "M1").await;
        let latencies = [3_600_000_000; 4];
        let delayed = DelaySpec { name: "D1".into(), base: "M1".into(), uuid: None, latencies };
        delay::create(&registry, delayed).await.unwrap().unwrap();
        mirror::create(&registry, "R0", &["M0", "D1"]).await.unwrap().unwrap();
        let channel = Bdev::open("R0").unwrap().channel().unwrap();
        let write = spawn_local(async move { channel.write(0, IoBuf::zeroed(512)).await.0 });
        yield_now().await;
        let before = now();
        registry.unregister(&registry.get("M0").unwrap()).await.unwrap();
        assert!(now() - before < Duration::from_secs(3600), "an hour of the simulation");
        // Both legs have written it: only its end was delayed.
        write.await.unwrap().unwrap();
        assert_eq!(names(&registry), ["M1", "D1"]);
    });
}
