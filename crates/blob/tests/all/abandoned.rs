//! A change of a blob that was given up never lands on a newer one that was acknowledged.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::pin::Pin;
use std::sync::Arc;

use spindle_blob::{Blob, BlobError, BlobOptions, Blobstore};
use spindle_block::{Channel, Device, Offset};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime, Thread, random, yield_now};
use support::{CLUSTER, disk, fill, poll_once, read, run_everywhere, slow_device, small};

/// What is asked for, and given up.
#[derive(Clone, Copy, Debug)]
enum Old {
    Write,
    Zeroes,
    Unmap,
}

const KINDS: [Old; 3] = [Old::Write, Old::Zeroes, Old::Unmap];

/// A change under way.
type Change<'a> = Pin<Box<dyn Future<Output = Result<(), BlobError>> + 'a>>;

/// Bytes that each change touches.
const LEN: u64 = 4096;

/// Two ways to a blob that know nothing of each other: a layer over each of two openings.
async fn two_ways(store: &Blobstore, blob: &Blob) -> [Arc<dyn Device>; 2] {
    let second = store.open_blob(blob.id()).await.unwrap();
    let over = |name, blob: &Blob| -> Arc<dyn Device> {
        let blocks = blob.device().geometry().blocks();
        Offset::new(name, blob.device(), 0, blocks).unwrap()
    };
    [over("one", blob), over("other", &second)]
}

async fn change(channel: &Channel, what: Old, at: u64) {
    let len = if let Old::Unmap = what { CLUSTER } else { LEN };
    let at = if let Old::Unmap = what { at / CLUSTER * CLUSTER } else { at };
    match what {
        Old::Write => channel.write(at, IoBuf::copy_from(&[1; LEN as usize])).await.0.unwrap(),
        Old::Zeroes => channel.write_zeroes(at, len).await.unwrap(),
        Old::Unmap => channel.unmap(at, len).await.unwrap(),
    }
}

/// Gives changes up on a thread of their own and makes a newer write by another device on another; how often the
/// newer one was not what is read in the end.
async fn overtaken(device: Arc<dyn Device>, ordered: bool) -> usize {
    let store = Blobstore::init(device, small()).await.unwrap();
    let mut overtaken = 0;
    for round in 0..12 {
        let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        if random().is_multiple_of(2) {
            fill(&blob, 0, 2 * CLUSTER, 7).await;
        }
        if random().is_multiple_of(2) {
            store.snapshot(id, Vec::new()).await.unwrap();
        }
        if !ordered {
            blob.device().state().unwrap().leave_out_held_ranges();
        }
        let [one, other] = two_ways(&store, &blob).await;
        let thread = Thread::create(&format!("connection {round}"), "[0-1023]").unwrap();
        let old = one.clone();
        let connection = thread.spawn(async move || {
            let channel = Channel::open_unheld(old).unwrap();
            let mut changes: Vec<_> = (0..4)
                .map(|_| {
                    let kind = KINDS[random() as usize % KINDS.len()];
                    let block = random() % 4;
                    Box::pin(change(&channel, kind, block * LEN))
                })
                .collect();
            for _ in 0..random() % 8 {
                std::future::poll_fn(|cx| {
                    changes.retain_mut(|change| change.as_mut().poll(cx).is_pending());
                    std::task::Poll::Ready(())
                })
                .await;
                yield_now().await;
            }
        });
        for _ in 0..random() % 8 {
            yield_now().await;
        }
        connection.abort();
        let _ = connection.await;
        let channel = Channel::open(other.clone()).unwrap();
        let at = random() % 4 * LEN;
        channel.write(at, IoBuf::copy_from(&[2; LEN as usize])).await.0.unwrap();
        thread.exit();
        thread.joined().await;
        channel.quiesce().await;
        overtaken += usize::from(read(&blob, at, LEN).await != [2; LEN as usize]);
        drop((channel, one, other));
        assert_eq!(blob.device().state().unwrap().held_ranges(), 0);
        blob.close().await.unwrap();
    }
    overtaken
}

fn in_simulation(seed: u64, ordered: bool) -> usize {
    let runtime = Runtime::builder().reactors(2).engine(EngineKind::Sim(seed)).build().unwrap();
    runtime.run(async move || overtaken(slow_device(&disk(16), seed), ordered).await).unwrap()
}

#[test]
fn an_older_change_of_a_blob_never_lands_on_a_newer_one_by_another_device_on_another_thread() {
    let with: usize = (0..40).map(|seed| in_simulation(seed, true)).sum();
    let without: usize = (0..40).map(|seed| in_simulation(seed, false)).sum();
    println!("{without} without the order");
    assert_eq!(with, 0);
    assert!(without > 0, "a test that cannot fail");
}

#[test]
fn a_long_change_that_was_given_up_makes_no_further_step_and_delays_no_other() {
    run_everywhere(async || {
        let disk = disk(64);
        let store = Blobstore::init(slow_device(&disk, 3), small()).await.unwrap();
        for options in [BlobOptions::thick(300), BlobOptions::thin(300)] {
            let id = store.create_blob(options).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            fill(&blob, 299 * CLUSTER, CLUSTER, 1).await;
            for turns in [0, 1, 2, 5, 20] {
                let zeroes: Change<'_> = Box::pin(blob.write_zeroes(0, 300 * CLUSTER));
                let unmap: Change<'_> = Box::pin(blob.unmap(0, 300 * CLUSTER));
                let mut changes = vec![zeroes, unmap];
                for _ in 0..turns {
                    changes.retain_mut(|change| poll_once(change.as_mut()).is_none());
                    yield_now().await;
                }
                drop(changes);
                fill(&blob, 0, CLUSTER, 2).await;
                fill(&blob, 130 * CLUSTER, CLUSTER, 3).await;
                let known = (read(&blob, 0, 512).await, read(&blob, 130 * CLUSTER, 512).await);
                assert_eq!(known, (vec![2; 512], vec![3; 512]));
            }
            assert_eq!(blob.device().state().unwrap().held_ranges(), 0);
            blob.close().await.unwrap();
            store.delete_blob(id).await.unwrap();
        }
        store.unload().await.unwrap();
    });
}
