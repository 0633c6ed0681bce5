//! Parents of volumes, inside and outside of their store, and copies.

use spindle_bdev::Bdev;
use spindle_lvol::LvolSpec;

use crate::support::{MIB, byte, channel, fill, lvs, malloc, simulated, store_spec, thin};

#[test]
fn a_clone_of_a_bdev_reads_it_until_it_is_written_and_keeps_writers_out() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let outside = malloc(&registry, "E0", 4).await;
        fill(&channel("E0"), MIB, 7).await;
        let clone = store.clone_bdev(&outside, "clone").await.unwrap();
        let info = clone.info().await.unwrap();
        assert!(info.is_esnap_clone && !info.is_clone && !info.is_degraded);
        assert_eq!((info.size, info.parent), (4 * MIB, Some(outside.uuid().to_string())));
        let to = channel("lvs/clone");
        assert_eq!(byte(&to, MIB).await, 7);
        fill(&to, MIB, 8).await;
        assert_eq!((byte(&to, MIB).await, byte(&to, MIB + 512).await), (8, 0));
        assert_eq!(Bdev::open("E0").unwrap_err().errno(), 1);
        assert_eq!(
            clone.extents(0, 2 * MIB, 9).await.unwrap().iter().map(|e| e.depth).collect::<Vec<_>>(),
            [2, 1]
        );
        for (bdev, errno) in [(clone.bdev().unwrap(), 22), (malloc(&registry, "odd", 1).await, 17)] {
            let name = if errno == 17 { "clone" } else { "other" };
            assert_eq!(store.clone_bdev(&bdev, name).await.unwrap_err().errno(), errno);
        }
        clone.inflate().await.unwrap();
        assert_eq!(byte(&channel("lvs/clone"), MIB).await, 8);
        registry.unregister(&outside).await.unwrap();
        assert_eq!(byte(&channel("lvs/clone"), MIB).await, 8);
    });
}

#[test]
fn a_thin_volume_gets_another_parent_of_its_size_or_a_reason() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let (one, two) = (thin(&store, "one", 4).await, thin(&store, "two", 4).await);
        fill(&channel("lvs/one"), 0, 1).await;
        fill(&channel("lvs/two"), MIB, 2).await;
        let s1 = one.snapshot("s1").await.unwrap();
        assert_eq!(byte(&channel("lvs/two"), 0).await, 0);
        two.set_parent(&s1).await.unwrap();
        let to = channel("lvs/two");
        assert_eq!((byte(&to, 0).await, byte(&to, MIB).await), (1, 2));
        assert_eq!(two.set_parent(&s1).await.unwrap_err().errno(), 17);
        assert_eq!(two.set_parent(&two).await.unwrap_err().errno(), 22);
        assert_eq!(two.set_parent(&one).await.unwrap_err().errno(), 22, "it can be written");
        let thick = store.create(LvolSpec::thick("thick", 4 * MIB)).await.unwrap();
        assert_eq!(thick.set_parent(&s1).await.unwrap_err().errno(), 22);
        let big = thin(&store, "big", 8).await;
        assert_eq!(big.set_parent(&s1).await.unwrap_err().errno(), 22);
        malloc(&registry, "M1", 16).await;
        let other = lvols.create_store(store_spec("M1", "lvs1")).await.unwrap();
        let far = thin(&other, "far", 4).await.snapshot("s").await.unwrap();
        assert_eq!(two.set_parent(&far).await.unwrap_err().errno(), 22, "it is in another store");
        assert_eq!(s1.delete().await.unwrap_err().errno(), 1);
        let outside = malloc(&registry, "E0", 4).await;
        fill(&channel("E0"), 0, 9).await;
        two.set_parent_bdev(&outside).await.unwrap();
        assert_eq!(byte(&channel("lvs/two"), 0).await, 9);
        assert_eq!(two.set_parent_bdev(&outside).await.unwrap_err().errno(), 17);
        assert_eq!(two.set_parent_bdev(&registry.get("M0").unwrap()).await.unwrap_err().errno(), 22);
        s1.delete().await.unwrap();
        // It goes, and comes back under another name.
        let uuid = outside.uuid();
        registry.unregister(&outside).await.unwrap();
        let spec = spindle_bdev::modules::malloc::MallocSpec {
            name: Some("E1".into()),
            uuid: Some(uuid),
            block_size: 512,
            num_blocks: 4 * MIB / 512,
            ..Default::default()
        };
        spindle_bdev::modules::malloc::create(&registry, spec).await.unwrap();
        registry.wait_for_examine().await;
        assert_eq!(byte(&channel("lvs/two"), 0).await, 0, "the new one is empty");
    });
}

#[test]
fn a_shallow_copy_has_the_volumes_own_clusters_and_says_how_far_it_is() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let target = malloc(&registry, "D0", 4).await;
        let vol = thin(&store, "vol", 4).await;
        fill(&channel("lvs/vol"), 0, 1).await;
        vol.snapshot("s").await.unwrap();
        fill(&channel("lvs/vol"), 2 * MIB, 2).await;
        let ended = async |copy: spindle_lvol::ShallowCopy| loop {
            if let Some(ended) = copy.ended() {
                return (ended, copy.copied(), copy.total());
            }
            spindle_reactor::yield_now().await;
        };
        let (refused, copied, total) = ended(vol.shallow_copy(&target).await.unwrap()).await;
        assert_eq!((refused.unwrap_err().errno(), copied, total), (1, 0, 1), "it can be written");
        vol.set_read_only().await.unwrap();
        assert_eq!(vol.shallow_copy(&registry.get("M0").unwrap()).await.unwrap_err().errno(), 1);
        let (done, copied, total) = ended(vol.shallow_copy(&target).await.unwrap()).await;
        done.unwrap();
        assert_eq!((copied, total), (1, 1));
        assert_eq!((byte(&channel("D0"), 0).await, byte(&channel("D0"), 2 * MIB).await), (0, 2));
        let small = malloc(&registry, "D1", 1).await;
        let (refused, ..) = ended(vol.shallow_copy(&small).await.unwrap()).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.errno(), 22);
        for words in ["\"lvs/vol\"", "\"D1\"", "1048576", "4194304", "name a larger bdev"] {
            assert!(refused.to_string().contains(words), "{refused}: {words}");
        }
        let onto_itself = vol.shallow_copy(&vol.bdev().unwrap()).await.unwrap_err();
        assert_eq!(onto_itself.errno(), 22);
        assert!(
            onto_itself.to_string().contains("not copied onto itself; name another bdev"),
            "{onto_itself}"
        );
        assert!(small.info().claim.is_none());
    });
}
