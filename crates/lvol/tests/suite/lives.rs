//! The life of a store and its volumes.

use spindle_bdev::{Bdev, DescOptions, Detail, IoType, NotificationKind, Registry};
use spindle_lvol::{ClearMethod, LvolError, LvolSpec, Lvols, StoreKey, StoreSpec};
use spindle_mem::IoBuf;

use crate::support::{MIB, byte, channel, fill, lvs, malloc, simulated, store_spec, thin};

#[test]
fn a_volume_goes_through_its_life_and_is_a_bdev_all_the_time() {
    simulated(async |registry: Registry, lvols: Lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = thin(&store, "vol", 4).await;
        assert_eq!(vol.alias(), "lvs/vol");
        let bdev = registry.get("lvs/vol").unwrap();
        let info = bdev.info();
        assert_eq!((info.name.as_str(), info.product_name), (vol.unique_id(), "Logical Volume"));
        assert_eq!((info.aliases, info.num_blocks), (vec!["lvs/vol".to_owned()], 4 * MIB / 512));
        assert!(info.io_types.contains(IoType::Flush) && info.io_types.contains(IoType::SeekHole));
        let writes = channel("lvs/vol");
        fill(&writes, 0, 1).await;
        let snap = vol.snapshot("snap").await.unwrap();
        fill(&writes, 0, 2).await;
        assert_eq!(byte(&channel("lvs/snap"), 0).await, 1);
        let refused = channel("lvs/snap").write(0, IoBuf::zeroed(512)).await.0;
        assert!(refused.is_err() && !registry.get("lvs/snap").unwrap().io_types().contains(IoType::Write));
        let clone = snap.clone_as("clone").await.unwrap();
        assert_eq!(byte(&channel("lvs/clone"), 0).await, 1);
        fill(&channel("lvs/clone"), 0, 3).await;
        assert_eq!((byte(&writes, 0).await, byte(&channel("lvs/snap"), 0).await), (2, 1));
        // Two read through it.
        assert_eq!(snap.delete().await.unwrap_err().errno(), 1);
        clone.inflate().await.unwrap();
        assert!(!clone.info().await.unwrap().is_clone);
        vol.decouple_parent().await.unwrap();
        assert_eq!(vol.decouple_parent().await.unwrap_err().errno(), 22);
        snap.delete().await.unwrap();
        assert!(registry.get("lvs/snap").is_err() && lvols.lvol("lvs/snap").is_err());
        clone.rename("other").await.unwrap();
        assert_eq!(byte(&channel("lvs/other"), 0).await, 3);
        vol.resize(6 * MIB + 1).await.unwrap();
        assert_eq!(bdev.num_blocks(), 7 * MIB / 512);
        fill(&writes, 6 * MIB, 9).await;
        vol.set_read_only().await.unwrap();
        assert!(writes.write(0, IoBuf::zeroed(512)).await.0.is_err());
        assert_eq!(byte(&writes, 0).await, 2);
        drop(writes);
        vol.delete().await.unwrap();
        store.delete().await.unwrap();
        assert_eq!(registry.bdevs().len(), 1, "only the base is left");
        assert!(lvols.stores().is_empty() && registry.get("M0").unwrap().info().claim.is_none());
    });
}

#[test]
fn stores_and_volumes_are_shown_as_spdk_shows_them() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let info = store.info().await.unwrap();
        assert_eq!((info.name.as_str(), info.base_bdev.as_str()), ("lvs", "M0"));
        assert_eq!((info.total_data_clusters, info.free_clusters, info.block_size), (63, 63, 512));
        assert_eq!((info.cluster_size, info.max_growable_size), (1 << 20, 34_317_795_328));
        let claim = registry.get("M0").unwrap().info().claim.unwrap();
        assert_eq!(claim.kind.name(), "read_many_write_one");
        let vol = store.create(LvolSpec::thick("vol", 4 * MIB)).await.unwrap();
        assert_eq!(store.info().await.unwrap().free_clusters, 59);
        let snap = vol.snapshot("snap").await.unwrap();
        let info = vol.info().await.unwrap();
        assert_eq!((info.is_thin_provisioned, info.is_clone, info.num_allocated_clusters), (true, true, 0));
        assert_eq!(info.parent.as_deref(), Some("snap"));
        let info = snap.info().await.unwrap();
        assert_eq!(
            (info.is_snapshot, info.num_allocated_clusters, info.clones),
            (true, 4, vec!["vol".to_owned()])
        );
        let details = |bdev: Bdev| async move { bdev.details().await.unwrap().get("lvol").unwrap().clone() };
        let shown = details(vol.bdev().unwrap()).await;
        assert_eq!(shown.get("base_snapshot"), Some(&Detail::from("snap")));
        assert_eq!(shown.get("lvol_store_uuid"), Some(&Detail::Text(store.uuid().to_string())));
        let shown = details(snap.bdev().unwrap()).await;
        assert_eq!(shown.get("clones"), Some(&Detail::List(vec!["vol".into()])));
        assert_eq!((shown.get("snapshot"), shown.get("base_snapshot")), (Some(&Detail::Bool(true)), None));
        // A snapshot whose clones are gone was one, until it is loaded again; a read-only volume is none.
        vol.delete().await.unwrap();
        assert!(snap.info().await.unwrap().is_snapshot);
        let kept = thin(&store, "kept", 1).await;
        kept.set_read_only().await.unwrap();
        assert!(!kept.info().await.unwrap().is_snapshot);
        assert!(lvols.store(&StoreKey::Uuid(store.uuid())).is_ok());
        let missing = lvols.store(&StoreKey::Name("nope".into())).unwrap_err();
        assert_eq!(missing.errno(), 19, "{missing}");
    });
}

#[test]
fn what_there_is_no_room_for_is_refused_and_leaves_nothing() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let free = store.info().await.unwrap().free_clusters;
        for (spec, errno) in [
            (LvolSpec::thick("huge", 1000 * MIB), 28),
            (LvolSpec::thick("max", u64::MAX), 28),
            (LvolSpec::thin("maxthin", u64::MAX), 12),
            (LvolSpec::thin("half", 1 << 63), 12),
        ] {
            let refused = store.create(spec.clone()).await.unwrap_err();
            assert_eq!(refused.errno(), errno, "{spec:?}: {refused}");
        }
        let vol = thin(&store, "vol", 1).await;
        assert_eq!(vol.resize(u64::MAX).await.unwrap_err().errno(), 12);
        let thick = store.create(LvolSpec::thick("thick", MIB)).await.unwrap();
        assert_eq!(thick.resize(1000 * MIB).await.unwrap_err().errno(), 28);
        assert_eq!(thick.bdev().unwrap().num_blocks(), MIB / 512);
        vol.resize(1000 * MIB).await.unwrap();
        assert_eq!(vol.inflate().await.unwrap_err().errno(), 28);
        thick.delete().await.unwrap();
        assert_eq!(store.info().await.unwrap().free_clusters, free);
        assert_eq!(store.lvols().len(), 1);
    });
}

#[test]
fn an_empty_volume_is_a_bdev_without_blocks_until_it_grows() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = store.create(LvolSpec::thin("empty", 0)).await.unwrap();
        assert_eq!(registry.get("lvs/empty").unwrap().info().num_blocks, 0);
        let to = channel("lvs/empty");
        assert!(to.read(0, IoBuf::zeroed(512)).await.0.is_err());
        vol.resize(MIB).await.unwrap();
        fill(&to, 512, 5).await;
        assert_eq!(byte(&to, 512).await, 5);
    });
}

#[test]
fn a_volume_shrinks_only_while_it_is_not_open_and_holders_are_notified_of_growth() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = thin(&store, "vol", 4).await;
        let told = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = told.clone();
        let count = move |_| _ = seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let desc = DescOptions::new().on_event(count).open("lvs/vol").unwrap();
        let refused = vol.resize(MIB).await.unwrap_err();
        assert_eq!(refused.errno(), 16, "{refused}");
        assert_eq!((vol.info().await.unwrap().size, desc.geometry().blocks()), (4 * MIB, 4 * MIB / 512));
        vol.resize(5 * MIB).await.unwrap();
        vol.resize(5 * MIB).await.unwrap();
        spindle_reactor::yield_now().await;
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(desc);
        vol.resize(MIB).await.unwrap();
        assert_eq!(vol.bdev().unwrap().num_blocks(), MIB / 512);
        registry.wait_for_examine().await;
        let resizes =
            registry.notifications(0, 99).into_iter().filter(|n| n.kind == NotificationKind::Resize);
        assert_eq!(resizes.count(), 2);
    });
}

#[test]
fn deleting_a_snapshot_with_one_clone_leaves_the_clone_what_it_read() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = thin(&store, "vol", 4).await;
        fill(&channel("lvs/vol"), MIB, 7).await;
        let first = vol.snapshot("first").await.unwrap();
        let second = vol.snapshot("second").await.unwrap();
        first.delete().await.unwrap();
        assert_eq!(byte(&channel("lvs/vol"), MIB).await, 7);
        second.delete().await.unwrap();
        assert_eq!(byte(&channel("lvs/vol"), MIB).await, 7);
        let info = vol.info().await.unwrap();
        assert_eq!((info.is_clone, info.num_allocated_clusters), (false, 1));
    });
}

#[test]
fn only_what_cannot_be_written_is_cloned_and_only_what_can_is_snapshotted() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = store
            .create(LvolSpec { clear_method: ClearMethod::None, ..LvolSpec::thin("vol", MIB) })
            .await
            .unwrap();
        assert!(matches!(vol.clone_as("c").await, Err(LvolError::NotReadOnly { .. })));
        vol.set_read_only().await.unwrap();
        vol.set_read_only().await.unwrap();
        assert!(matches!(vol.snapshot("s").await, Err(LvolError::SnapshotOfReadOnly { .. })));
        vol.clone_as("c").await.unwrap();
        for refused in [vol.resize(2 * MIB).await, vol.rename("other").await] {
            assert_eq!(refused.unwrap_err().errno(), 1);
        }
        assert!(registry.get("lvs/vol").is_ok(), "a refused rename has changed no alias");
    });
}

#[test]
fn a_store_grows_live_with_its_bdev_and_says_so_when_it_cannot() {
    simulated(async |registry, lvols| {
        let outer = lvs(&registry, &lvols).await;
        let base = thin(&outer, "base", 20).await;
        let inner = lvols.create_store(store_spec("lvs/base", "inner")).await.unwrap();
        assert_eq!(inner.info().await.unwrap().total_data_clusters, 19);
        inner.grow().await.unwrap();
        assert_eq!(inner.info().await.unwrap().total_data_clusters, 19, "the same size is no growth");
        base.resize(30 * MIB).await.unwrap();
        inner.grow().await.unwrap();
        assert_eq!(inner.info().await.unwrap().total_data_clusters, 29);
        let vol = inner.create(LvolSpec::thick("vol", 28 * MIB)).await.unwrap();
        fill(&channel("inner/vol"), 27 * MIB, 4).await;
        assert_eq!(byte(&channel("inner/vol"), 27 * MIB).await, 4);
        assert_eq!(base.resize(MIB).await.unwrap_err().errno(), 16, "a store stands on it");
        vol.delete().await.unwrap();
    });
}

#[test]
fn the_base_of_a_store_is_its_own_and_others_are_told_why() {
    simulated(async |registry, lvols| {
        lvs(&registry, &lvols).await;
        let again = lvols.create_store(store_spec("M0", "other")).await.unwrap_err();
        assert_eq!(again.errno(), 1, "{again}");
        let twice = lvols.create_store(store_spec("M0", "lvs")).await.unwrap_err();
        assert_eq!(twice.errno(), 1, "the claim counts before the name, as in SPDK: {twice}");
        assert_eq!(Bdev::open("M0").unwrap_err().errno(), 1);
        malloc(&registry, "M1", 64).await;
        let same = lvols.create_store(store_spec("M1", "lvs")).await.unwrap_err();
        assert_eq!(same.errno(), 17, "{same}");
        assert_eq!(lvols.create_store(store_spec("nope", "x")).await.unwrap_err().errno(), 19);
        let writer = Bdev::open("M1").unwrap();
        assert_eq!(lvols.create_store(store_spec("M1", "x")).await.unwrap_err().errno(), 1);
        drop(writer);
        let small = spindle_lvol::StoreSpec { cluster_size: Some(128 << 20), ..store_spec("M1", "x") };
        assert_eq!(lvols.create_store(small).await.unwrap_err().errno(), 22);
        let odd = spindle_lvol::StoreSpec { cluster_size: Some(1000), ..store_spec("M1", "x") };
        assert_eq!(lvols.create_store(odd).await.unwrap_err().errno(), 22);
        assert!(registry.get("M1").unwrap().info().claim.is_none(), "a refusal has left no claim");
    });
}

#[test]
fn a_store_on_memory_has_its_few_metadata_pages_for_volumes_and_none_for_copies() {
    simulated(async |registry, lvols| {
        malloc(&registry, "M0", 20).await;
        // With SPDK's clusters of 4 MiB: five pages, all of which a volume and a snapshot with data need.
        let spec = StoreSpec { bdev: "M0".into(), name: "lvs".into(), ..StoreSpec::default() };
        let store = lvols.create_store(spec).await.unwrap();
        let vol = thin(&store, "vol", 16).await;
        let writes = channel("lvs/vol");
        fill(&writes, 4 * MIB, 1).await;
        vol.snapshot("snap").await.unwrap();
        fill(&writes, 0, 2).await;
        assert_eq!((byte(&writes, 0).await, byte(&channel("lvs/snap"), 4 * MIB).await), (2, 1));
    });
}
