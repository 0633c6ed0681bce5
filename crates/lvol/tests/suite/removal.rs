//! What happens to stores and volumes when their bdevs go, and when they come back.

use spindle_bdev::modules::file::{self, FileSpec, Spelling};
use spindle_bdev::{Bdev, DescOptions, Registry};
use spindle_block::IoErrorKind;
use spindle_lvol::{LvolSpec, Lvols};
use spindle_mem::IoBuf;
use spindle_reactor::EngineKind;

use crate::support::{MIB, byte, channel, fill, lvs, malloc, on, simulated, store_spec, thin};

#[test]
fn a_base_that_is_removed_takes_its_store_and_volumes_along_also_nested_ones() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        thin(&store, "v", 40).await;
        let inner = lvols.create_store(store_spec("lvs/v", "inner")).await.unwrap();
        let vol = thin(&inner, "i", 4).await;
        let held = Bdev::open("inner/i").unwrap();
        let to = held.channel().unwrap();
        fill(&to, 0, 1).await;
        registry.delete("malloc", "M0").await.unwrap();
        assert!(registry.bdevs().is_empty() && lvols.stores().is_empty() && lvols.lvols().is_empty());
        assert_eq!(to.read(0, IoBuf::zeroed(512)).await.0.unwrap_err().kind, IoErrorKind::Removed);
        assert_eq!(vol.resize(MIB).await.unwrap_err().errno(), 19);
        assert_eq!(inner.create(LvolSpec::thin("late", MIB)).await.unwrap_err().errno(), 19);
        assert!(lvols.reports().is_empty(), "{:?}", lvols.reports());
    });
}

#[test]
fn deleting_an_open_volume_notifies_its_holders_and_does_not_wait_for_those_that_ignore_it() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = thin(&store, "vol", 4).await;
        let desc = DescOptions::new().write(true).on_event(|_| ()).open("lvs/vol").unwrap();
        let to = desc.channel().unwrap();
        fill(&to, 0, 1).await;
        vol.delete().await.unwrap();
        assert_eq!(to.write(0, IoBuf::zeroed(512)).await.0.unwrap_err().kind, IoErrorKind::Removed);
        // Its blob's id and clusters go to another; the husk does not reach them.
        let next = thin(&store, "next", 4).await;
        fill(&channel("lvs/next"), 0, 2).await;
        assert!(
            to.write(0, IoBuf::zeroed(512)).await.0.is_err()
                && to.read(0, IoBuf::zeroed(512)).await.0.is_err()
        );
        assert_eq!(byte(&channel("lvs/next"), 0).await, 2);
        next.delete().await.unwrap();
        drop((to, desc));
        store.delete().await.unwrap();
    });
}

fn image(path: &std::path::Path) -> FileSpec {
    FileSpec {
        name: "F0".into(),
        filename: path.into(),
        block_size: Some(4096),
        read_only: false,
        fallocate: true,
        uuid: None,
        spelling: Spelling::Aio,
    }
}

async fn open(registry: &Registry, path: &std::path::Path) {
    file::create(registry, image(path)).await.unwrap();
    registry.wait_for_examine().await;
}

#[test]
fn stores_come_back_by_examine_after_an_orderly_end_and_after_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(64 * MIB).unwrap();
    for round in 0..4_u8 {
        let path = path.clone();
        let run = async move |registry: Registry, lvols: Lvols| {
            open(&registry, &path).await;
            if round == 0 {
                let store = lvols.create_store(store_spec("F0", "lvs")).await.unwrap();
                for name in ["a", "b"] {
                    thin(&store, name, 8).await;
                }
                store.lvol("a").unwrap().snapshot("s").await.unwrap();
            }
            let to = channel("lvs/a");
            let block = |round: u8| u64::from(round) * MIB;
            for before in 0..round {
                let (read, buffers) = to.read(block(before), IoBuf::zeroed(4096)).await;
                read.unwrap();
                assert_eq!(buffers.to_vec(), [before + 1; 4096]);
            }
            to.write(block(round), IoBuf::copy_from(&[round + 1; 4096])).await.0.unwrap();
            to.flush().await.unwrap();
            let store = &lvols.stores()[0];
            assert_eq!((store.name().as_str(), store.lvols().len(), store.set_aside()), ("lvs", 3, vec![]));
            assert!(store.lvol("s").unwrap().info().await.unwrap().is_snapshot);
        };
        if round % 2 == 0 {
            on(EngineKind::Auto, run);
        } else {
            // Ends without leaving the store.
            let runtime = spindle_reactor::Runtime::builder().reactors(2).build().unwrap();
            runtime
                .run(async move || {
                    let registry = Registry::start().unwrap();
                    let lvols = Lvols::start(&registry).await.unwrap();
                    run(registry, lvols).await;
                })
                .unwrap();
        }
    }
}

#[test]
fn a_store_on_a_file_grows_with_it_by_one_call() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let resize = move |path: &std::path::Path, mib: u64| {
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(path).unwrap();
        file.set_len(mib * MIB).unwrap();
    };
    resize(&path, 64);
    on(EngineKind::Auto, async move |registry, lvols| {
        open(&registry, &path).await;
        let store = lvols.create_store(store_spec("F0", "lvs")).await.unwrap();
        resize(&path, 96);
        store.grow().await.unwrap();
        assert_eq!(store.info().await.unwrap().total_data_clusters, 95);
        assert_eq!(registry.get("F0").unwrap().num_blocks(), 96 * MIB / 4096);
        resize(&path, 32);
        assert_eq!(store.grow().await.unwrap_err().errno(), 16, "it shrank under the store");
        resize(&path, 96);
        store.grow().await.unwrap();
    });
}

#[test]
fn a_store_on_a_file_that_cannot_be_written_is_loaded_for_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(64 * MIB).unwrap();
    let again = path.clone();
    on(EngineKind::Auto, async move |registry, lvols| {
        open(&registry, &path).await;
        let store = lvols.create_store(store_spec("F0", "lvs")).await.unwrap();
        thin(&store, "a", 4).await;
        channel("lvs/a").write(0, IoBuf::copy_from(&[7; 4096])).await.0.unwrap();
    });
    on(EngineKind::Auto, async move |registry, lvols| {
        file::create(&registry, FileSpec { read_only: true, ..image(&again) }).await.unwrap();
        registry.wait_for_examine().await;
        let store = &lvols.stores()[0];
        let refused = store.create(LvolSpec::thick("b", MIB)).await.unwrap_err();
        assert_eq!(refused.errno(), 5, "{refused}");
        let (read, buffers) = channel("lvs/a").read(0, IoBuf::zeroed(4096)).await;
        read.unwrap();
        assert_eq!(buffers.to_vec(), [7; 4096]);
        assert!(channel("lvs/a").write(0, IoBuf::zeroed(4096)).await.0.is_err());
    });
}

#[test]
fn two_stores_of_one_name_do_not_come_both_and_the_second_is_reported() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let base = store.base().clone();
        store.unload().await.unwrap();
        malloc(&registry, "M1", 64).await;
        lvols.create_store(store_spec("M1", "lvs")).await.unwrap();
        lvols.reload(&base).await;
        assert_eq!(lvols.stores().len(), 1);
        let reports = lvols.reports();
        assert!(reports[0].0 == "M0" && reports[0].1.contains("lvs"), "{reports:?}");
        assert!(base.info().claim.is_none());
    });
}

#[test]
fn many_volumes_come_back() {
    const MANY: usize = 300;
    simulated(async |registry, lvols| {
        malloc(&registry, "M0", 512).await;
        let store = lvols.create_store(store_spec("M0", "lvs")).await.unwrap();
        for number in 0..MANY {
            thin(&store, &format!("v{number}"), 1).await;
        }
        let base = store.base().clone();
        store.unload().await.unwrap();
        assert_eq!(registry.bdevs().len(), 1);
        lvols.reload(&base).await;
        registry.wait_for_examine().await;
        assert_eq!((lvols.lvols().len(), registry.bdevs().len()), (MANY, MANY + 1));
        let announced = registry.notifications(0, u64::MAX);
        assert_eq!(announced.len(), 1 + 3 * MANY);
    });
}
