//! Inflates, decouples and shallow copies that are under way when something else is asked for.

use std::time::Duration;

use spindle_bdev::modules::delay::{self, DelaySpec};
use spindle_bdev::{Bdev, Registry};
use spindle_lvol::{LvolError, LvolStore, Lvols, ShallowCopy};
use spindle_reactor::{JoinHandle, sleep, spawn_local};

use crate::support::{MIB, byte, channel, fill, malloc, simulated, store_spec, thin};

/// The clusters that are copied.
const CLUSTERS: u64 = 48;

/// A store `lvs` on a bdev `D0` that takes a millisecond for a request. Its volume `s` has all of its clusters, and a clone
/// `c`, which has none.
async fn slow_store(registry: &Registry, lvols: &Lvols) -> LvolStore {
    malloc(registry, "M0", 128).await;
    let spec = DelaySpec { name: "D0".into(), base: "M0".into(), uuid: None, latencies: [1000; 4] };
    delay::create(registry, spec).await.unwrap();
    let store = lvols.create_store(store_spec("D0", "lvs")).await.unwrap();
    let vol = thin(&store, "v", CLUSTERS).await;
    let to = channel("lvs/v");
    for cluster in 0..CLUSTERS {
        fill(&to, cluster * MIB, cluster as u8 + 1).await;
    }
    vol.snapshot("s").await.unwrap().clone_as("c").await.unwrap();
    malloc(registry, "T0", CLUSTERS).await;
    store
}

/// Whether the bdev has all data of `s`.
async fn has_all(name: &str) -> bool {
    let from = channel(name);
    for cluster in 0..CLUSTERS {
        if byte(&from, cluster * MIB).await != cluster as u8 + 1 {
            return false;
        }
    }
    true
}

async fn allocated(store: &LvolStore, name: &str) -> u64 {
    store.lvol(name).unwrap().info().await.unwrap().num_allocated_clusters
}

/// Inflates or decouples `c`; returns once some of its clusters were copied.
async fn begin_to_detach(store: &LvolStore, inflate: bool) -> JoinHandle<Result<(), LvolError>> {
    let clone = store.lvol("c").unwrap();
    let work = async move { if inflate { clone.inflate().await } else { clone.decouple_parent().await } };
    let work = spawn_local(work);
    while allocated(store, "c").await == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    work
}

/// Copies `s` to `T0`; returns once some of its clusters were copied.
async fn begin_to_copy(store: &LvolStore) -> ShallowCopy {
    let target = Bdev::open("T0").unwrap().bdev();
    let copy = store.lvol("s").unwrap().shallow_copy(&target).await.unwrap();
    while copy.copied() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    copy
}

async fn end_of(copy: &ShallowCopy) -> Result<(), LvolError> {
    loop {
        match copy.ended() {
            Some(ended) => return ended,
            None => sleep(Duration::from_millis(1)).await,
        }
    }
}

fn says(error: &LvolError, errno: i32, words: &[&str]) {
    assert_eq!(error.errno(), errno, "{error}");
    for words in words {
        assert!(error.to_string().contains(words), "{error}: {words}");
    }
}

/// Leaves the store and loads it again.
async fn left_and_loaded(lvols: &Lvols, store: LvolStore) -> LvolStore {
    let base = store.base().clone();
    store.unload().await.unwrap();
    lvols.reload(&base).await;
    lvols.stores()[0].clone()
}

#[test]
fn an_inflate_or_decouple_ends_early_when_its_store_is_left_and_the_next_one_goes_on_from_there() {
    for inflate in [true, false] {
        simulated(async move |registry, lvols| {
            let store = slow_store(&registry, &lvols).await;
            let work = begin_to_detach(&store, inflate).await;
            let store = left_and_loaded(&lvols, store).await;
            let what = if inflate { "inflate of volume \"lvs/c\"" } else { "decouple of volume \"lvs/c\"" };
            says(&work.await.unwrap().unwrap_err(), 125, &[what, "the same call goes on from there"]);
            let copied = allocated(&store, "c").await;
            assert!((1..CLUSTERS).contains(&copied), "{copied}");
            assert!(store.lvol("c").unwrap().info().await.unwrap().is_clone && has_all("lvs/c").await);
            begin_to_detach(&store, inflate).await.await.unwrap().unwrap();
            assert_eq!(allocated(&store, "c").await, CLUSTERS);
            assert!(!store.lvol("c").unwrap().info().await.unwrap().is_clone && has_all("lvs/c").await);
        });
    }
}

#[test]
fn a_shallow_copy_ends_between_clusters_when_its_store_is_left_and_its_state_says_so() {
    simulated(async |registry, lvols| {
        let store = slow_store(&registry, &lvols).await;
        let copy = begin_to_copy(&store).await;
        let store = left_and_loaded(&lvols, store).await;
        let stopped = copy.ended().expect("it has ended with the store").unwrap_err();
        let what = "shallow copy of volume \"lvs/s\" to bdev \"T0\"";
        says(&stopped, 125, &[what, "start it again"]);
        assert!((1..CLUSTERS).contains(&copy.copied()) && copy.total() == CLUSTERS, "{copy:?}");
        let target = registry.get("T0").unwrap();
        assert!(target.info().claim.is_none());
        for cluster in 0..CLUSTERS {
            let is_there = byte(&channel("T0"), cluster * MIB).await != 0;
            assert_eq!(is_there, cluster < copy.copied(), "cluster {cluster}");
        }
        end_of(&begin_to_copy(&store).await).await.unwrap();
        assert!(has_all("T0").await);
    });
}

#[test]
fn all_such_work_ends_early_when_the_runtime_is_about_to_end_and_later_work_too() {
    simulated(async |registry, lvols| {
        let store = slow_store(&registry, &lvols).await;
        let (work, copy) = (begin_to_detach(&store, true).await, begin_to_copy(&store).await);
        lvols.end_copying().await;
        says(&work.await.unwrap().unwrap_err(), 125, &["\"lvs/c\""]);
        says(&end_of(&copy).await.unwrap_err(), 125, &["\"lvs/s\""]);
        says(&store.lvol("c").unwrap().inflate().await.unwrap_err(), 125, &["\"lvs/c\""]);
        assert!(allocated(&store, "c").await < CLUSTERS);
    });
}

#[test]
fn neither_store_nor_volume_is_deleted_while_a_volume_is_inflated_decoupled_or_copied() {
    simulated(async |registry, lvols| {
        let store = slow_store(&registry, &lvols).await;
        for inflate in [false, true] {
            let work = begin_to_detach(&store, inflate).await;
            let what = if inflate { "inflate of volume \"lvs/c\"" } else { "decouple of volume \"lvs/c\"" };
            says(&store.delete().await.unwrap_err(), 16, &["lvolstore \"lvs\"", what, "delete it when"]);
            says(&store.lvol("c").unwrap().delete().await.unwrap_err(), 16, &["\"lvs/c\""]);
            assert_eq!((store.lvols().len(), registry.get("lvs/c").is_ok()), (3, true));
            work.await.unwrap().unwrap();
            assert!(has_all("lvs/c").await);
            store.lvol("c").unwrap().delete().await.unwrap();
            store.lvol("s").unwrap().clone_as("c").await.unwrap();
        }
        let copy = begin_to_copy(&store).await;
        let what = "shallow copy of volume \"lvs/s\" to bdev \"T0\"";
        says(&store.delete().await.unwrap_err(), 16, &["lvolstore \"lvs\"", what, "delete it when"]);
        store.lvol("c").unwrap().delete().await.unwrap();
        says(&store.lvol("s").unwrap().delete().await.unwrap_err(), 16, &["\"lvs/s\""]);
        end_of(&copy).await.unwrap();
        assert!(has_all("T0").await);
        store.delete().await.unwrap();
        assert!(lvols.stores().is_empty());
    });
}
