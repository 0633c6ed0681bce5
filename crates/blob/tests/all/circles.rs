//! Stores whose blobs are each other's parents: no such store is ever made, and on one that damage or an enemy
//! made so, every operation ends.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use spindle_blob::{BlobId, BlobOptions, Blobstore};
use spindle_engine::sim::{Disk, Image};
use spindle_format::metadata::internal;
use spindle_format::{Flags, chain};
use spindle_mem::IoBuf;

use crate::support::{CLUSTER, check_image, disk, disk_again, fill, init, load, run_on};

/// Clusters of a blob.
const SIZE: u64 = 8;

/// A disk with these blobs, each in its own cluster with data, each with the parent that `parents` names by its place.
async fn with_parents(parents: &[usize]) -> (Disk, Vec<BlobId>) {
    let first = disk(8);
    let store = init(&first).await;
    let mut ids = Vec::new();
    for nth in 0..parents.len() {
        let id = store.create_blob(BlobOptions::thin(SIZE)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, nth as u64 * CLUSTER, CLUSTER, nth as u8 + 1).await;
        blob.close().await.unwrap();
        ids.push(id);
    }
    store.unload().await.unwrap();
    let mut bytes = first.snapshot().visible().to_bytes();
    let read = check_image(first.snapshot().visible());
    for (&id, &parent) in ids.iter().zip(parents) {
        let blob = read.blob(id).unwrap();
        let mut meta = blob.metadata.clone();
        meta.flags.invalid |= Flags::THIN;
        meta.set_internal(internal::SNAPSHOT, &ids[parent].raw().to_le_bytes()).unwrap();
        let mut pages = chain::to_pages(id, &meta);
        chain::link(&mut pages, &blob.chain);
        let writes = blob.chain.iter().zip(&pages).map(|(&at, page)| page.write(at, &read.geometry));
        writes.for_each(|write| write.apply(&mut bytes));
    }
    (disk_again(Image::from_bytes(&bytes)), ids)
}

/// Numbers below what is asked for.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed * 7919 + 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// Does one thing to a blob, which may be refused.
async fn do_one(store: &Blobstore, id: BlobId, other: BlobId, what: u64) {
    let Ok(blob) = store.open_blob(id).await else { return };
    let _ = match what {
        0 => blob.read(0, IoBuf::zeroed((SIZE * CLUSTER) as usize)).await.0,
        1 => blob.write(2 * CLUSTER, IoBuf::copy_from(&[9; 4096])).await.0,
        2 => blob.resize(SIZE * 2).await,
        3 => blob.resize(SIZE / 2).await,
        4 => store.snapshot(id, Vec::new()).await.map(drop),
        5 => store.inflate(id).await,
        6 => store.decouple_parent(id).await,
        7 => store.set_parent(id, spindle_blob::Parent::Snapshot(other)).await,
        8 => store.blob_info(id).await.map(drop),
        9 => match blob.replace().await {
            Ok(new) => new.commit().await,
            Err(error) => Err(error),
        },
        _ => blob.unmap(0, SIZE * CLUSTER).await,
    };
    let _ = blob.close().await;
    if what == 11 {
        let _ = store.delete_blob(id).await;
    }
}

#[test]
fn operations_on_blobs_whose_parents_form_a_circle_end() {
    let circles: [&[usize]; 5] = [&[0], &[1, 0], &[1, 2, 0], &[1, 2, 1], &[1, 2, 3, 1]];
    for seed in 0..60_u64 {
        let parents = circles[seed as usize % circles.len()];
        run_on(&format!("sim:{seed}"), async move || {
            let (disk, ids) = with_parents(parents).await;
            let store = load(&disk).await;
            let mut below = random(seed);
            // Some stay open, as their views of the chain then do.
            let mut open = Vec::new();
            for _ in 0..30 {
                let id = ids[below(ids.len() as u64) as usize];
                let other = ids[below(ids.len() as u64) as usize];
                match below(4) {
                    0 => open.extend(store.open_blob(id).await),
                    1 if !open.is_empty() => drop(open.remove(0)),
                    _ => do_one(&store, id, other, below(12)).await,
                }
            }
        });
    }
}
