//! Chains of blobs on which much is asked for at the same time, by the seed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use spindle_blob::{BlobError, BlobId, BlobOptions, Blobstore};
use spindle_reactor::spawn_local;
use support::{CLUSTER, check, disk, fill, read, run_on, slow_device, small};

/// Concurrent operations on one chain change no blob's contents and lose no cluster, whatever they return.
#[test]
fn operations_on_one_chain_at_once_change_no_contents() {
    for seed in 0..60_u64 {
        run_on(&format!("sim:{seed}"), async move || together(seed).await);
    }
}

/// Numbers below what is asked for.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed * 7919 + 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

async fn together(seed: u64) {
    let disk = disk(16);
    let store = Blobstore::init(slow_device(&disk, seed), small()).await.unwrap();
    let mut below = random(seed);
    let first = store.create_blob(BlobOptions::thin(8)).await.unwrap();
    let blob = store.open_blob(first).await.unwrap();
    let mut known: BTreeMap<BlobId, Vec<u8>> = BTreeMap::new();
    for depth in 0..3 {
        for at in 0..3 {
            fill(&blob, (depth * 2 + at) * CLUSTER, CLUSTER, (depth * 3 + at + 1) as u8).await;
        }
        let now = read(&blob, 0, blob.size()).await;
        let snapshot = store.snapshot(first, Vec::new()).await.unwrap();
        known.insert(snapshot, now);
    }
    known.insert(first, read(&blob, 0, blob.size()).await);
    blob.close().await.unwrap();
    for _round in 0..6 {
        let ids: Vec<BlobId> = known.keys().copied().collect();
        if ids.is_empty() {
            break;
        }
        let mut jobs = Vec::new();
        for _ in 0..4 {
            let id = ids[below(ids.len() as u64) as usize];
            let what = below(6);
            let store = store.clone();
            jobs.push(spawn_local(async move {
                let made = match what {
                    0 => store.snapshot(id, Vec::new()).await.map(Some),
                    1 => store.clone_blob(id, Vec::new()).await.map(Some),
                    2 => store.inflate(id).await.map(|()| None),
                    3 => store.decouple_parent(id).await.map(|()| None),
                    _ => store.delete_blob(id).await.map(|()| None),
                };
                (what, id, made)
            }));
        }
        let (mut gone, mut made_of) = (Vec::new(), Vec::new());
        let mut story = Vec::new();
        for job in jobs {
            let (what, id, made) = job.await.unwrap();
            story.push(format!("{what} {id} {made:?}"));
            match made {
                Ok(Some(new)) => made_of.push((new, id)),
                Ok(None) if what >= 4 => gone.push(id),
                Ok(None) => {}
                Err(BlobError::Poisoned { .. } | BlobError::Damaged { .. }) => panic!("{made:?}"),
                Err(_) => {}
            }
        }
        for (new, of) in made_of {
            // What was made of a blob whose id was given out again may hold what either held.
            let contents = known[&of].clone();
            match gone.contains(&of) {
                true => drop(known.remove(&new)),
                false => drop(known.insert(new, contents)),
            }
        }
        let mut used = 0;
        for id in store.blobs().await.unwrap() {
            used += store.blob_info(id).await.unwrap().allocated;
        }
        let info = store.info().await.unwrap();
        let lost = u64::from(info.data_clusters - info.free_clusters) as i64 - used as i64;
        assert_eq!(lost, 0, "seed {seed}: clusters without an owner, after {story:?}");
        // An id that was given out again is another blob's: left alone then.
        for id in gone {
            known.remove(&id);
        }
        for (&id, contents) in &known {
            let Ok(blob) = store.open_blob(id).await else { panic!("seed {seed}: {id} is gone") };
            let (result, bytes) = blob.read(0, spindle_mem::IoBuf::zeroed(contents.len())).await;
            result.unwrap_or_else(|error| panic!("seed {seed}: {id}: {error}"));
            assert!(bytes.to_vec() == *contents, "seed {seed}: {id} has changed");
            blob.close().await.unwrap();
        }
    }
    store.unload().await.unwrap();
    check(&disk);
}

/// Writes go on while their blob is snapshot, inflated, decoupled, and its snapshots go: all arrive, and what was a
/// snapshot's stays.
#[test]
fn writes_beside_operations_on_their_chain_all_arrive() {
    for seed in 0..30_u64 {
        run_on(&format!("sim:{seed}"), async move || beside_writes(seed).await);
    }
}

async fn beside_writes(seed: u64) {
    let disk = disk(16);
    let store = Blobstore::init(slow_device(&disk, seed), small()).await.unwrap();
    let id = store.create_blob(BlobOptions::thin(8)).await.unwrap();
    let blob = store.open_blob(id).await.unwrap();
    let stop = Rc::new(Cell::new(false));
    let writer = {
        let (stop, blob) = (stop.clone(), blob.clone());
        spawn_local(async move {
            let mut now = vec![0_u8; (8 * CLUSTER) as usize];
            let mut random = random(seed);
            while !stop.get() {
                let at = random(8 * CLUSTER / 4096 - 1) * 4096;
                let len = 4096 + 4096 * random(((8 * CLUSTER - at) / 4096).min(32)) as usize;
                let byte = 1 + random(255) as u8;
                match random(8) {
                    0 => {
                        blob.unmap(at, len as u64).await.unwrap();
                        blob.write_zeroes(at, len as u64).await.unwrap();
                        now[at as usize..][..len].fill(0);
                    }
                    _ => {
                        fill(&blob, at, len as u64, byte).await;
                        now[at as usize..][..len].fill(byte);
                    }
                }
            }
            now
        })
    };
    let mut random = random(seed + 1000);
    let mut kept: BTreeMap<BlobId, Vec<u8>> = BTreeMap::new();
    for _ in 0..12 {
        let ids: Vec<BlobId> = kept.keys().copied().chain([id]).collect();
        let mut jobs = Vec::new();
        for _ in 0..3 {
            let (store, what) = (store.clone(), random(5));
            let any = ids[random(ids.len() as u64) as usize];
            jobs.push(spawn_local(async move {
                match what {
                    0 => drop(store.inflate(any).await),
                    1 => drop(store.decouple_parent(any).await),
                    2 if any != id => match store.delete_blob(any).await {
                        Ok(()) => return (None, Some(any)),
                        Err(_busy) => {}
                    },
                    _ => return (store.snapshot(id, Vec::new()).await.ok(), None),
                }
                (None, None)
            }));
        }
        let mut made = Vec::new();
        for job in jobs {
            let (new, gone) = job.await.unwrap();
            made.extend(new);
            gone.iter().for_each(|gone| drop(kept.remove(gone)));
        }
        for new in made {
            let snapshot = store.open_blob(new).await.unwrap();
            kept.insert(new, read(&snapshot, 0, snapshot.size()).await);
            snapshot.close().await.unwrap();
        }
        for (&id, contents) in &kept {
            let snapshot = store.open_blob(id).await.unwrap();
            assert!(read(&snapshot, 0, snapshot.size()).await == *contents, "seed {seed}: {id} has changed");
            snapshot.close().await.unwrap();
        }
    }
    stop.set(true);
    let now = writer.await.unwrap();
    assert!(read(&blob, 0, blob.size()).await == now, "seed {seed}: a write is missing");
    blob.close().await.unwrap();
    store.unload().await.unwrap();
    check(&disk);
}
