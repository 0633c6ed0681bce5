//! Each volume has its own limits and counts, without requests of other volumes.

use std::time::Duration;

use spindle_block::Limits;
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, now};

use crate::support::{MIB, channel, fill, lvs, on, thin};

#[test]
fn what_is_done_to_a_volume_is_counted_for_it_alone_and_goes_with_it() {
    on(EngineKind::Sim(3), async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        for name in ["a", "b"] {
            thin(&store, name, 4).await;
        }
        // New bdevs are looked at: that is counted too.
        registry.wait_for_examine().await;
        let of = |name: &str| {
            let counts = registry.get(name).unwrap().statistics();
            let of = |one: spindle_block::OperationStatistics| (one.operations, one.bytes);
            (of(counts.read), of(counts.write))
        };
        let fresh = of("lvs/b");
        let more = |operations, bytes, written| ((fresh.0.0 + operations, fresh.0.1 + bytes), written);
        let (a, b) = (channel("lvs/a"), channel("lvs/b"));
        for block in 0..3 {
            fill(&a, block * 512, 1).await;
        }
        b.read(0, IoBuf::zeroed(512)).await.0.unwrap();
        let snap = lvols.lvol("lvs/a").unwrap().snapshot("snap").await.unwrap();
        // What a clone reads of its snapshot is the clone's own.
        a.read(0, IoBuf::zeroed(1024)).await.0.unwrap();
        registry.wait_for_examine().await;
        assert_eq!(of("lvs/a"), more(1, 1024, (3, 1536)));
        assert_eq!(of("lvs/b"), more(1, 512, (0, 0)));
        assert_eq!(of("lvs/snap"), fresh);
        drop((a, b));
        // They stay with the volume through a new name and size, and another of its name begins at nothing.
        let vol = lvols.lvol("lvs/a").unwrap();
        vol.rename("c").await.unwrap();
        vol.resize(8 * MIB).await.unwrap();
        assert_eq!(of("lvs/c"), more(1, 1024, (3, 1536)));
        vol.delete().await.unwrap();
        snap.delete().await.unwrap();
        thin(&store, "c", 4).await;
        registry.wait_for_examine().await;
        assert_eq!(of("lvs/c"), fresh);
    });
}

#[test]
fn a_limit_slows_its_volume_and_neither_its_clone_nor_its_neighbour() {
    on(EngineKind::Sim(4), async |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        for name in ["a", "b"] {
            thin(&store, name, 4).await;
        }
        let limits = Limits { operations: Some(1000), ..Limits::default() };
        registry.get("lvs/a").unwrap().set_limits(limits).await.unwrap();
        let snap = lvols.lvol("lvs/a").unwrap().snapshot("snap").await.unwrap();
        snap.clone_as("clone").await.unwrap();
        let spent = async |name: &str| {
            let (to, begun) = (channel(name), now());
            for _ in 0..500 {
                to.read(0, IoBuf::zeroed(512)).await.0.unwrap();
            }
            now() - begun
        };
        // The time is the simulation's.
        let (slow, clone, other) = (spent("lvs/a").await, spent("lvs/clone").await, spent("lvs/b").await);
        assert!(slow >= Duration::from_millis(400), "{slow:?}");
        assert!(clone < slow / 10 && other < slow / 10, "{clone:?} and {other:?} beside {slow:?}");
        assert_eq!(registry.get("lvs/clone").unwrap().limits(), Limits::default());
        registry.get("lvs/a").unwrap().set_limits(Limits::default()).await.unwrap();
        let free = spent("lvs/a").await;
        assert!(free < slow / 10, "{free:?}");
    });
}
