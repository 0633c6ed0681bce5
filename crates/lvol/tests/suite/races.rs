//! Operations at once, in the order that a seed picks.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spindle_bdev::{Bdev, Registry};
use spindle_lvol::{LvolSpec, Lvols};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Thread};

use crate::support::{MIB, lvs, on, thin};

const BLOCKS: u64 = 16;

/// Writes rising numbers to one block of a volume until told to stop.
async fn writer(block: u64, acknowledged: Arc<[AtomicU64]>, issued: Arc<[AtomicU64]>, stop: Arc<AtomicU64>) {
    let desc = Bdev::open("lvs/vol").unwrap();
    let channel = desc.channel().unwrap();
    let mut number = 0_u64;
    while stop.load(Ordering::Acquire) == 0 {
        number += 1;
        issued[block as usize].store(number, Ordering::Release);
        let bytes = number.to_le_bytes().repeat(64);
        // Blocks lie in different clusters: some writes allocate, some do not.
        channel.write(block * MIB / 2, IoBuf::copy_from(&bytes)).await.0.unwrap();
        acknowledged[block as usize].store(number, Ordering::Release);
        // A RAM disk answers at once.
        spindle_reactor::yield_now().await;
    }
}

#[test]
fn a_snapshot_under_load_holds_exactly_what_was_acknowledged_before_it() {
    let mut busy = 0;
    for seed in 0..25 {
        let total = Arc::new(AtomicU64::new(0));
        let sum = total.clone();
        on(EngineKind::Sim(seed), async move |registry: Registry, lvols: Lvols| {
            let store = lvs(&registry, &lvols).await;
            let vol = thin(&store, "vol", 16).await;
            let counters = || (0..BLOCKS).map(|_| AtomicU64::new(0)).collect::<Arc<[AtomicU64]>>();
            let (acknowledged, issued, stop) = (counters(), counters(), Arc::new(AtomicU64::new(0)));
            let threads = ["one", "two"].map(|name| Thread::create(name, "[0-1023]").unwrap());
            let mut tasks = Vec::new();
            for block in 0..BLOCKS {
                let (a, i, s) = (acknowledged.clone(), issued.clone(), stop.clone());
                tasks.push(threads[block as usize % 2].spawn(async move || writer(block, a, i, s).await));
            }
            for round in 0..3 {
                for _ in 0..spindle_reactor::random() % 200 {
                    spindle_reactor::yield_now().await;
                }
                let before: Vec<u64> = acknowledged.iter().map(|n| n.load(Ordering::Acquire)).collect();
                let snapshot = vol.snapshot(&format!("s{round}")).await.unwrap();
                let after: Vec<u64> = issued.iter().map(|n| n.load(Ordering::Acquire)).collect();
                let clone = snapshot.clone_as(&format!("c{round}")).await.unwrap();
                let channel = Bdev::open(&clone.alias()).unwrap().channel().unwrap();
                for block in 0..BLOCKS {
                    let (read, buffers) = channel.read(block * MIB / 2, IoBuf::zeroed(512)).await;
                    read.unwrap();
                    let bytes = buffers.to_vec();
                    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                    assert!(bytes.chunks(8).all(|word| word == &bytes[..8]), "a write is whole");
                    let (low, high) = (before[block as usize], after[block as usize]);
                    assert!((low..=high).contains(&number), "block {block}: {number} not in {low}..={high}");
                    sum.fetch_add(u64::from(low > 0), Ordering::Relaxed);
                }
            }
            stop.store(1, Ordering::Release);
            for task in tasks {
                task.await.unwrap();
            }
            threads.iter().for_each(Thread::exit);
        });
        busy += total.load(Ordering::Relaxed);
    }
    assert!(busy > 1000, "the load is there when the snapshots are taken: {busy}");
}

/// One of the things that may be asked for at any time.
async fn step(lvols: &Lvols, counts: &Rc<[Cell<u64>; 2]>) {
    let Some(store) = lvols.stores().first().cloned() else { return };
    let pick = |n: u64| spindle_reactor::random() % n;
    let name = |prefix: &str| format!("{prefix}{}", pick(6));
    let some = || {
        let all = store.lvols();
        (!all.is_empty()).then(|| all[pick(all.len() as u64) as usize].clone())
    };
    let result = match (pick(9), some()) {
        (0 | 1, _) | (_, None) => store.create(LvolSpec::thin(name("v"), pick(3) * MIB)).await.map(drop),
        (2, Some(lvol)) => lvol.snapshot(&name("s")).await.map(drop),
        (3, Some(lvol)) => lvol.clone_as(&name("c")).await.map(drop),
        (4, Some(lvol)) => lvol.rename(&name("r")).await,
        (5, Some(lvol)) => lvol.resize(pick(4) * MIB).await,
        (6, Some(lvol)) => lvol.inflate().await,
        (7, Some(lvol)) => store.rename(&name("lvs")).await.and(lvol.info().await.map(drop)),
        (_, Some(lvol)) => lvol.delete().await,
    };
    match result {
        Ok(()) => counts[0].set(counts[0].get() + 1),
        Err(error) => {
            let errno = error.errno();
            assert!([1, 12, 16, 17, 19, 22, 28].contains(&errno), "{errno}: {error}");
            counts[1].set(counts[1].get() + 1);
        }
    }
}

#[test]
fn operations_at_once_end_each_in_success_or_refusal_and_the_store_stays_whole() {
    let mut done = [0, 0];
    for seed in 0..30 {
        let (sender, receiver) = std::sync::mpsc::channel();
        on(EngineKind::Sim(seed), async move |registry: Registry, lvols: Lvols| {
            let store = lvs(&registry, &lvols).await;
            let base = store.base().clone();
            drop(store);
            let counts: Rc<[Cell<u64>; 2]> = Rc::default();
            for round in 0..2 {
                let tasks: Vec<_> = (0..4)
                    .map(|_| {
                        let (lvols, counts) = (lvols.clone(), counts.clone());
                        spindle_reactor::spawn_local(async move {
                            for _ in 0..25 {
                                step(&lvols, &counts).await;
                            }
                        })
                    })
                    .collect();
                if round == 1 && seed % 3 == 0 {
                    // The base goes in the middle of it.
                    for _ in 0..spindle_reactor::random() % 300 {
                        spindle_reactor::yield_now().await;
                    }
                    registry.unregister(&base).await.unwrap();
                }
                for task in tasks {
                    task.await.unwrap();
                }
            }
            // Names and bdevs agree, and the store that comes back has the same volumes.
            let names = |lvols: &Lvols| {
                let mut names: Vec<String> = lvols.lvols().iter().map(|lvol| lvol.alias()).collect();
                names.sort();
                names
            };
            let before = names(&lvols);
            for name in &before {
                assert_eq!(registry.get(name).unwrap(), lvols.lvol(name).unwrap().bdev().unwrap());
            }
            assert_eq!(registry.bdevs().iter().filter(|bdev| bdev.module() == "lvol").count(), before.len());
            if let Some(store) = lvols.stores().pop() {
                assert_eq!(store.set_aside(), Vec::<String>::new());
                store.unload().await.unwrap();
                lvols.reload(&base).await;
                assert_eq!(names(&lvols), before);
                assert_eq!(lvols.stores()[0].set_aside(), Vec::<String>::new());
            }
            sender.send([counts[0].get(), counts[1].get()]).unwrap();
        });
        let counts = receiver.recv().unwrap();
        done = [done[0] + counts[0], done[1] + counts[1]];
    }
    assert!(done[0] > 500 && done[1] > 300, "both happen: {done:?}");
}
