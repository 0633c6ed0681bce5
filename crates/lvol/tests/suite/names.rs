//! Names of stores and volumes.

use spindle_lvol::LvolSpec;

use crate::support::{MIB, byte, channel, fill, lvs, malloc, simulated, store_spec, thin};

#[test]
fn names_are_1_to_63_bytes_of_anything_but_nul() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let longest = "n".repeat(63);
        let uuid = "11111111-2222-4333-8444-555555555555";
        for name in ["sl/ash", "quote\"q", "apostrophe'", "new\nline", " ", "/", "\u{fc}", uuid, &longest] {
            let vol = thin(&store, name, 1).await;
            assert_eq!(lvols.lvol(&format!("lvs/{name}")).unwrap(), vol);
            vol.rename("other").await.unwrap();
            vol.rename(name).await.unwrap();
            vol.delete().await.unwrap();
        }
        let vol = thin(&store, "vol", 1).await;
        for bad in ["", "nul\0x", &"n".repeat(64), &"\u{fc}".repeat(32)] {
            for refused in [
                store.create(LvolSpec::thin(bad, MIB)).await.map(drop),
                vol.rename(bad).await,
                vol.snapshot(bad).await.map(drop),
                store.rename(bad).await,
            ] {
                assert_eq!(refused.unwrap_err().errno(), 22, "{bad:?}");
            }
        }
        assert_eq!(store.lvols().len(), 1);
    });
}

#[test]
fn a_name_is_given_once_in_a_store_and_an_alias_once_in_the_registry() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        malloc(&registry, "M1", 16).await;
        let other = lvols.create_store(store_spec("M1", "lvs1")).await.unwrap();
        let vol = thin(&store, "a", 1).await;
        thin(&other, "a", 1).await;
        malloc(&registry, "lvs/taken", 1).await;
        let snap = vol.snapshot("s").await.unwrap();
        for name in ["a", "s", "taken"] {
            for refused in [
                store.create(LvolSpec::thin(name, MIB)).await.map(drop),
                vol.snapshot(name).await.map(drop),
                snap.clone_as(name).await.map(drop),
                vol.rename(name).await,
            ] {
                let refused = refused.unwrap_err();
                assert_eq!(refused.errno(), 17, "{name}: {refused}");
            }
        }
        assert_eq!(store.info().await.unwrap().free_clusters, 63);
        assert_eq!((store.lvols().len(), registry.get("lvs/a").unwrap()), (2, vol.bdev().unwrap()));
        vol.delete().await.unwrap();
        thin(&store, "a", 1).await;
    });
}

#[test]
fn renaming_a_store_renames_all_aliases_or_none() {
    simulated(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        malloc(&registry, "M1", 16).await;
        lvols.create_store(store_spec("M1", "lvs1")).await.unwrap();
        for name in ["a", "b", "c"] {
            thin(&store, name, 1).await;
        }
        fill(&channel("lvs/b"), 0, 3).await;
        store.rename("lvs").await.unwrap();
        assert_eq!(store.rename("lvs1").await.unwrap_err().errno(), 17);
        malloc(&registry, "new/c", 1).await;
        assert_eq!(store.rename("new").await.unwrap_err().errno(), 17);
        assert_eq!((store.name(), registry.get("new/a").is_err()), ("lvs".to_owned(), true));
        assert!(registry.get("lvs/a").is_ok() && registry.get("lvs/c").is_ok());
        registry.delete("malloc", "new/c").await.unwrap();
        store.rename("new").await.unwrap();
        assert!(registry.get("lvs/a").is_err());
        assert_eq!(byte(&channel("new/b"), 0).await, 3);
        // It is on disk.
        store.unload().await.unwrap();
        let base = registry.get("M0").unwrap();
        assert!(registry.get("new/a").is_err() && base.info().claim.is_none());
        lvols.reload(&base).await;
        assert_eq!(byte(&channel("new/b"), 0).await, 3);
    });
}
