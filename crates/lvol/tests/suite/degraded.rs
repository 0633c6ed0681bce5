//! Clones of bdevs that come and go while they are used.

use std::cell::Cell;
use std::rc::Rc;

use spindle_bdev::modules::malloc::{self, MallocSpec};
use spindle_bdev::{Bdev, Registry, Uuid};
use spindle_block::IoErrorKind;
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, random, spawn_local, yield_now};

use crate::support::{MIB, byte, channel, fill, lvs, on, thin};

const BLOCKS: u64 = 8;

/// The bdev outside, with the same in it each time.
async fn outside(registry: &Registry) -> Bdev {
    let (name, uuid) = (Some("E0".to_owned()), Some(Uuid::from_u128(0xe0)));
    let spec = MallocSpec { name, uuid, block_size: 512, num_blocks: 4 * MIB / 512, ..MallocSpec::default() };
    malloc::create(registry, spec).await.unwrap()
}

#[test]
fn a_clone_whose_bdev_comes_and_goes_under_load_keeps_what_it_was_given_and_reads_on() {
    let (mut reads, mut failures) = (0, 0);
    for seed in 0..12 {
        let (sender, receiver) = std::sync::mpsc::channel();
        on(EngineKind::Sim(seed), async move |registry, lvols| {
            let store = lvs(&registry, &lvols).await;
            let clone = store.clone_bdev(&outside(&registry).await, "clone").await.unwrap();
            let snap = clone.snapshot("snap").await.unwrap();
            let (stop, counts) = (Rc::new(Cell::new(false)), Rc::new(Cell::new([0_u64; 2])));
            let (stops, counted) = (stop.clone(), counts.clone());
            let load = spawn_local(async move {
                let to = channel("lvs/clone");
                let mut given = [0; BLOCKS as usize];
                while !stops.get() {
                    // An operation that fails at once lets no other task run.
                    yield_now().await;
                    let (block, byte) = (random() % BLOCKS, 1 + (random() % 250) as u8);
                    let at = block * MIB / 2;
                    let [mut done, mut failed] = counted.get();
                    if random().is_multiple_of(4) {
                        // A write to a cluster that is the parent's has to read there first.
                        match to.write(at, IoBuf::copy_from(&[byte; 512])).await.0 {
                            Ok(()) => given[block as usize] = byte,
                            Err(error) => assert_eq!(error.kind, IoErrorKind::Removed, "{error}"),
                        }
                    }
                    let (read, buffers) = to.read(at, IoBuf::zeroed(512)).await;
                    match read {
                        Ok(()) => {
                            assert_eq!(buffers.to_vec(), [given[block as usize]; 512], "block {block}");
                            done += 1;
                        }
                        Err(error) => {
                            assert_eq!(error.kind, IoErrorKind::Removed, "{error}");
                            assert_eq!(given[block as usize], 0, "block {block} is the clone's own");
                            failed += 1;
                        }
                    }
                    counted.set([done, failed]);
                }
                given
            });
            for _ in 0..6 {
                for _ in 0..random() % 200 {
                    yield_now().await;
                }
                registry.delete("malloc", "E0").await.unwrap();
                assert!(snap.info().await.unwrap().is_degraded);
                for _ in 0..random() % 200 {
                    yield_now().await;
                }
                outside(&registry).await;
                registry.wait_for_examine().await;
                assert!(!snap.info().await.unwrap().is_degraded);
            }
            stop.set(true);
            let given = load.await.unwrap();
            let of = channel("lvs/clone");
            for (block, expected) in (0..).zip(given) {
                assert_eq!(byte(&of, block * MIB / 2).await, expected, "block {block}");
            }
            sender.send(counts.get()).unwrap();
        });
        let [done, failed] = receiver.recv().unwrap();
        (reads, failures) = (reads + done, failures + failed);
    }
    assert!(reads > 500 && failures > 50, "both happen: {reads} {failures}");
}

#[test]
fn a_degraded_volume_can_be_deleted_and_renamed_and_comes_back_when_its_bdev_does() {
    on(EngineKind::Sim(1), async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        for name in ["a", "b"] {
            store.clone_bdev(&outside_once(&registry).await, name).await.unwrap();
        }
        fill(&channel("lvs/a"), 0, 5).await;
        let base = store.base().clone();
        store.unload().await.unwrap();
        registry.delete("malloc", "E0").await.unwrap();
        lvols.reload(&base).await;
        registry.wait_for_examine().await;
        // Without its bdev a volume has none itself.
        let (a, b) = (lvols.lvol("lvs/a").unwrap(), lvols.lvol("lvs/b").unwrap());
        assert!(a.info().await.unwrap().is_degraded && registry.get("lvs/a").is_err());
        assert_eq!(a.snapshot("s").await.unwrap_err().errno(), 19);
        b.delete().await.unwrap();
        outside(&registry).await;
        registry.wait_for_examine().await;
        assert_eq!((byte(&channel("lvs/a"), 0).await, byte(&channel("lvs/a"), MIB).await), (5, 0));
        assert!(lvols.lvol("lvs/b").is_err());
    });
}

#[test]
fn all_volumes_that_read_through_a_bdev_that_is_gone_are_degraded_until_it_is_back_however_long_the_chain() {
    on(EngineKind::Sim(1), async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let clone = store.clone_bdev(&outside(&registry).await, "clone").await.unwrap();
        let bottom = clone.snapshot("bottom").await.unwrap();
        let snap = clone.snapshot("snap").await.unwrap();
        let (beside, above) =
            (bottom.clone_as("beside").await.unwrap(), snap.clone_as("above").await.unwrap());
        let apart = thin(&store, "apart", 4).await;
        for gone in [false, true, false, true] {
            if gone {
                registry.delete("malloc", "E0").await.unwrap();
            } else {
                outside_once(&registry).await;
                registry.wait_for_examine().await;
            }
            for lvol in [&clone, &bottom, &snap, &beside, &above] {
                assert_eq!(lvol.info().await.unwrap().is_degraded, gone, "{lvol:?}");
            }
            for name in ["clone", "beside", "above"] {
                let read = channel(&format!("lvs/{name}")).read(0, IoBuf::zeroed(512)).await.0;
                assert_eq!(read.is_err(), gone, "{name}");
            }
            assert!(!apart.info().await.unwrap().is_degraded);
        }
    });
}

async fn outside_once(registry: &Registry) -> Bdev {
    match registry.get("E0") {
        Ok(bdev) => bdev,
        Err(_) => outside(registry).await,
    }
}
