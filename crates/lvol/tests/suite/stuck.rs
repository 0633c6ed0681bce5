//! Stores on bdevs that keep their requests for ever.

use spindle_bdev::Registry;
use spindle_bdev::modules::error::{self, Effect, ErrorSpec, Injection, Target};
use spindle_bdev::modules::passthru::{self, PassthruSpec};
use spindle_block::Operation;
use spindle_lvol::{LvolSpec, LvolStore, Lvols};
use spindle_reactor::{EngineKind, ReportLevel, spawn_local};

use crate::support::{MIB, byte, channel, fill, lvs, malloc, on_reporting, simulated, store_spec, thin};

/// A store `stuck` with a volume `v`, on a bdev or on a passthru `P0` on that: the bdev `EE_S0` keeps all writes once
/// it is [told](keep_writes) to.
async fn stuck_store(registry: &Registry, lvols: &Lvols, below: bool) -> LvolStore {
    malloc(registry, "S0", 64).await;
    error::create(registry, ErrorSpec { base: "S0".into(), uuid: None }).await.unwrap();
    if below {
        let spec = PassthruSpec { name: "P0".into(), base: "EE_S0".into(), uuid: None };
        passthru::create(registry, spec).await.unwrap();
    }
    let base = if below { "P0" } else { "EE_S0" };
    let store = lvols.create_store(store_spec(base, "stuck")).await.unwrap();
    thin(&store, "v", 4).await;
    fill(&channel("stuck/v"), 0, 7).await;
    store
}

fn keep_writes(registry: &Registry) {
    for operation in [Operation::Write, Operation::Unmap] {
        let kept = Injection { effect: Effect::Pending, count: u32::MAX, queue_depth: 0 };
        error::inject(registry, "EE_S0", Target::One(operation), kept).unwrap();
    }
}

#[test]
fn a_stop_ends_although_a_bdev_keeps_what_a_store_writes_and_only_that_store_is_not_clean() {
    for (below, busy) in [(false, false), (true, false), (false, true), (true, true)] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let reports = on_reporting(EngineKind::Sim(1), async move |registry, lvols| {
            let well = lvs(&registry, &lvols).await;
            thin(&well, "v", 4).await;
            let store = stuck_store(&registry, &lvols, below).await;
            keep_writes(&registry);
            if busy {
                drop(spawn_local(async move { store.create(LvolSpec::thick("w", MIB)).await }));
                spindle_reactor::yield_now().await;
            }
            sender.send(lvols).unwrap();
        });
        let lvols = receiver.recv().unwrap();
        assert_eq!(lvols.failed_unloads(), 1, "{below} {busy}");
        let unclean = reports.iter().filter(|(_, said)| said.contains("is not unloaded cleanly"));
        let [(ReportLevel::Error, said)] = &unclean.collect::<Vec<_>>()[..] else { panic!("{reports:?}") };
        let base = if below { "\"P0\"" } else { "\"EE_S0\"" };
        for words in ["lvolstore \"stuck\"", base, "the next load recovers"] {
            assert!(said.contains(words), "{said}: {words}");
        }
    }
}

#[test]
fn a_stop_ends_although_a_bdev_keeps_what_is_copied_to_it_and_the_store_is_clean() {
    let (sender, receiver) = std::sync::mpsc::channel();
    on_reporting(EngineKind::Sim(1), async move |registry, lvols| {
        let store = lvs(&registry, &lvols).await;
        let vol = thin(&store, "v", 4).await;
        fill(&channel("lvs/v"), 0, 7).await;
        vol.set_read_only().await.unwrap();
        malloc(&registry, "S0", 4).await;
        error::create(&registry, ErrorSpec { base: "S0".into(), uuid: None }).await.unwrap();
        keep_writes(&registry);
        let copy = vol.shallow_copy(&registry.get("EE_S0").unwrap()).await.unwrap();
        sender.send((lvols, copy)).unwrap();
    });
    let (lvols, copy) = receiver.recv().unwrap();
    assert_eq!(lvols.failed_unloads(), 0);
    let ended = copy.ended().expect("it has ended").unwrap_err();
    assert_eq!((ended.errno(), copy.copied()), (125, 0), "{ended}");
}

#[test]
fn the_removal_of_a_bdev_ends_although_it_keeps_what_its_store_writes_and_the_store_comes_back() {
    for below in [false, true] {
        simulated(async move |registry, lvols| {
            stuck_store(&registry, &lvols, below).await;
            keep_writes(&registry);
            error::delete(&registry, "EE_S0").await.unwrap();
            assert!(registry.get("stuck/v").is_err() && registry.get("EE_S0").is_err());
            lvols.reload(&registry.get("S0").unwrap()).await;
            assert_eq!(byte(&channel("stuck/v"), 0).await, 7);
            assert_eq!(lvols.stores()[0].base().name(), "S0");
        });
    }
}
