//! Volumes that have no bdev because something is in the way, and get it when that is gone.

use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_bdev::{Bdev, DescOptions, Registry, Uuid};
use spindle_lvol::{Lvol, Lvols};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, ReportLevel, yield_now};

use crate::support::{MIB, byte, channel, fill, lvs, malloc, on_reporting, thin};

/// Runs a test; what was reported as an error or a warning in it.
fn warned(test: impl AsyncFnOnce(Registry, Lvols) + Send + 'static) -> Vec<String> {
    let said = on_reporting(EngineKind::Sim(1), test);
    said.into_iter().filter(|(level, _)| *level != ReportLevel::Info).map(|(_, text)| text).collect()
}

/// Lets the tasks that wait for something run.
async fn settle() {
    for _ in 0..1000 {
        yield_now().await;
    }
}

/// Checks that a volume without a bdev says why, to each operation, with the words of its error.
async fn refuses_all(lvol: &Lvol, says: &[&str]) {
    assert!(lvol.bdev().is_none());
    for refused in [
        lvol.snapshot("s").await.map(drop),
        lvol.clone_as("c").await.map(drop),
        lvol.rename("n").await,
        lvol.resize(2 * MIB).await,
        lvol.set_read_only().await,
        lvol.inflate().await,
        lvol.decouple_parent().await,
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.errno(), 19, "{refused}");
        for words in says {
            assert!(refused.to_string().contains(words), "{refused}: {words}");
        }
    }
}

#[test]
fn a_volume_whose_name_is_taken_at_load_says_by_whom_and_gets_its_bdev_when_the_name_is_free() {
    for by_uuid in [false, true] {
        let said = warned(async move |registry, lvols| {
            let store = lvs(&registry, &lvols).await;
            let uuid = thin(&store, "t", 4).await.unique_id().to_owned();
            fill(&channel("lvs/t"), 0, 7).await;
            let base = store.base().clone();
            store.unload().await.unwrap();
            let (name, uuid) = match by_uuid {
                true => ("other".to_owned(), Uuid::try_parse(&uuid).ok()),
                false => ("lvs/t".to_owned(), None),
            };
            let spec = MallocSpec {
                name: Some(name.clone()),
                uuid,
                block_size: 512,
                num_blocks: 8,
                ..MallocSpec::default()
            };
            malloc::create(&registry, spec).await.unwrap();
            lvols.reload(&base).await;
            let lvol = lvols.lvol("lvs/t").unwrap();
            refuses_all(
                &lvol,
                &["\"lvs/t\"", "is taken by", &format!("{name:?} of module malloc"), "delete"],
            )
            .await;
            assert!(!lvol.info().await.unwrap().is_degraded);
            assert_eq!(lvols.stores()[0].set_aside().len(), 1);
            registry.delete("malloc", &name).await.unwrap();
            settle().await;
            assert_eq!((lvols.lvol("lvs/t").unwrap(), lvol.bdev().is_some()), (lvol, true));
            assert_eq!(byte(&channel("lvs/t"), 0).await, 7);
            assert_eq!(lvols.stores()[0].set_aside(), Vec::<String>::new());
        });
        assert_eq!(said.len(), 1, "{said:?}");
    }
}

#[test]
fn a_volume_without_its_name_can_be_deleted_and_gets_its_bdev_when_its_store_is_renamed() {
    warned(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        for name in ["a", "b"] {
            thin(&store, name, 1).await;
        }
        let base = store.base().clone();
        store.unload().await.unwrap();
        for name in ["lvs/a", "lvs/b"] {
            malloc(&registry, name, 1).await;
        }
        lvols.reload(&base).await;
        lvols.lvol("lvs/a").unwrap().delete().await.unwrap();
        assert!(lvols.lvol("lvs/a").is_err());
        let b = lvols.lvol("lvs/b").unwrap();
        lvols.stores()[0].rename("new").await.unwrap();
        settle().await;
        assert_eq!(registry.get("new/b").unwrap(), b.bdev().unwrap());
        // A store that is left while a volume waits is left whole, and nothing waits for it.
        malloc(&registry, "new/c", 1).await;
        lvols.stores()[0].unload().await.unwrap();
        registry.delete("malloc", "new/c").await.unwrap();
        settle().await;
    });
}

/// Copies the contents of a bdev to a new one of the same size.
async fn copy(registry: &Registry, from: &Bdev, to: &str) -> Bdev {
    let target = malloc(registry, to, from.geometry().bytes() / MIB).await;
    let (source, sink) = (DescOptions::new().open(from.name()).unwrap(), Bdev::open(to).unwrap());
    let (source, sink) = (source.channel().unwrap(), sink.channel().unwrap());
    for at in (0..from.geometry().bytes()).step_by(MIB as usize) {
        let (read, data) = source.read(at, IoBuf::zeroed(MIB as usize)).await;
        read.unwrap();
        sink.write(at, data).await.0.unwrap();
    }
    target
}

#[test]
fn a_copy_of_a_store_is_named_with_the_other_one_and_its_volumes_come_when_the_other_goes() {
    let said = warned(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = thin(&store, "t", 4).await;
        fill(&channel("lvs/t"), 0, 3).await;
        drop(vol);
        let base = store.base().clone();
        store.unload().await.unwrap();
        let second = copy(&registry, &base, "M1").await;
        lvols.reload(&base).await;
        // The same name: it is not loaded.
        lvols.reload(&second).await;
        assert_eq!(lvols.stores().len(), 1);
        let problem = lvols.problems().join("; ");
        assert!(
            ["\"lvs\"", "\"M0\"", "\"M1\"", "bdev_lvol_rename_lvstore"].iter().all(|w| problem.contains(w)),
            "{problem}"
        );
        // Another name: it is loaded, without the volumes of the first.
        lvols.stores()[0].rename("first").await.unwrap();
        lvols.reload(&second).await;
        let copied = lvols.lvol("lvs/t").unwrap();
        refuses_all(&copied, &["\"lvs/t\"", "volume \"first/t\"", "\"M0\""]).await;
        registry.unregister(&base).await.unwrap();
        settle().await;
        assert!(copied.bdev().is_some());
        assert_eq!(byte(&channel("lvs/t"), 0).await, 3);
    });
    for words in
        ["is not loaded: the lvolstore on bdev \"M0\" has that name", "has the UUID of lvolstore \"first\""]
    {
        assert_eq!(said.iter().filter(|text| text.contains(words)).count(), 1, "{words}: {said:?}");
    }
}

#[test]
fn no_volume_is_put_on_a_bdev_that_is_open_for_writing() {
    warned(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let outside = malloc(&registry, "E0", 4).await;
        let thin = thin(&store, "thin", 4).await;
        let writer = outside.descriptor(DescOptions::new().write(true).holder("NBD export \"x\"")).unwrap();
        // EPERM and EINVAL, as in SPDK.
        for (refused, errno) in [
            (store.clone_bdev(&outside, "clone").await.map(drop), 1),
            (thin.set_parent_bdev(&outside).await, 22),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.errno(), errno);
            let said = refused.to_string();
            assert!(
                said.contains("\"E0\"") && said.contains("NBD export \"x\" has it open for writing"),
                "{said}"
            );
            assert!(!said.contains('\0') && !said.contains("\\x00"), "{said}");
        }
        assert_eq!((store.lvols().len(), thin.info().await.unwrap().parent), (1, None));
        drop(writer);
        store.clone_bdev(&outside, "clone").await.unwrap();
        thin.set_parent_bdev(&outside).await.unwrap();
    });
}

#[test]
fn a_clone_whose_bdev_is_open_for_writing_says_so_and_is_whole_when_that_is_closed() {
    let said = warned(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let outside = malloc(&registry, "E0", 4).await;
        let clone = store.clone_bdev(&outside, "clone").await.unwrap();
        clone.snapshot("snap").await.unwrap();
        // A handle keeps the device of what it reads.
        drop(clone);
        let base = store.base().clone();
        store.unload().await.unwrap();
        let writer = outside.descriptor(DescOptions::new().write(true).holder("NBD export \"x\"")).unwrap();
        lvols.reload(&base).await;
        for name in ["lvs/clone", "lvs/snap"] {
            let lvol = lvols.lvol(name).unwrap();
            refuses_all(&lvol, &[name, "\"E0\"", "NBD export \"x\" has it open for writing"]).await;
            assert!(lvol.info().await.unwrap().is_degraded);
        }
        drop(writer);
        settle().await;
        for name in ["lvs/clone", "lvs/snap"] {
            let lvol = lvols.lvol(name).unwrap();
            assert!(lvol.bdev().is_some() && !lvol.info().await.unwrap().is_degraded, "{name}");
        }
    });
    assert!(said.iter().any(|text| text.contains("NBD export \"x\"")), "{said:?}");
}

#[test]
fn volumes_in_use_are_named_when_the_bdev_of_their_store_goes() {
    let said = warned(async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        thin(&store, "used", 1).await;
        thin(&store, "unused", 1).await;
        let user = DescOptions::new().holder("NBD export \"x\"").open("lvs/used").unwrap();
        registry.unregister(store.base()).await.unwrap();
        drop(user);
    });
    let [said] = &said[..] else { panic!("{said:?}") };
    for words in ["\"lvs\"", "\"M0\"", "\"lvs/used\" (open for NBD export \"x\")"] {
        assert!(said.contains(words) && !said.contains("unused"), "{said}: {words}");
    }
}
