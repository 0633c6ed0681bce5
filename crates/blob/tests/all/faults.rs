//! The n-th request of each kind fails, for every n, in every operation: an error where it belongs, nothing
//! half done, nothing lost, and the store or its next load goes on.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spindle_blob::{BlobError, BlobId, BlobOptions, Blobstore, BsType, LoadOptions, Parent};
use spindle_block::{Effect, Faulty, Malloc, Operation};
use spindle_engine::sim::{Disk, DiskOptions, Image};
use spindle_mem::IoBuf;
use support::{CLUSTER, check_image, device, fill, run_on, sha256, small};

const KINDS: [Operation; 5] =
    [Operation::Read, Operation::Write, Operation::Flush, Operation::WriteZeroes, Operation::Unmap];

/// The blobs of the store that every operation starts from.
#[derive(Clone, Copy)]
struct Ids {
    /// Three clusters, all there.
    thick: BlobId,
    /// Thin, no parent, every second cluster there.
    thin: BlobId,
    /// A snapshot with one clone.
    snapshot: BlobId,
    clone: BlobId,
    /// A snapshot of the same size without clones.
    other: BlobId,
}

async fn prepare(atomic_unit: u32) -> (Image, DiskOptions, Ids) {
    let options = DiskOptions { atomic_unit, ..DiskOptions::new(8 << 20) };
    let disk = Disk::new(options);
    let store = Blobstore::init(device(&disk), small()).await.unwrap();
    let thick = store.create_blob(BlobOptions::thick(3).xattr("name", "thick")).await.unwrap();
    let thin = store.create_blob(BlobOptions::thin(8)).await.unwrap();
    let clone = store.create_blob(BlobOptions::thin(8)).await.unwrap();
    let last = store.create_blob(BlobOptions::thin(8)).await.unwrap();
    let mut handles = Vec::new();
    for id in [thick, thin, clone, last] {
        handles.push(store.open_blob(id).await.unwrap());
    }
    fill(&handles[0], 0, 3 * CLUSTER, 1).await;
    for index in [0, 2, 4, 6] {
        fill(&handles[1], index * CLUSTER, CLUSTER, 2).await;
    }
    fill(&handles[2], 0, 4 * CLUSTER, 3).await;
    fill(&handles[3], 0, CLUSTER, 4).await;
    let snapshot = store.snapshot(clone, vec![(b"name".to_vec(), b"snapshot".to_vec())]).await.unwrap();
    let other = store.snapshot(last, Vec::new()).await.unwrap();
    fill(&handles[2], 3 * CLUSTER, 2 * CLUSTER, 5).await;
    for handle in handles {
        handle.close().await.unwrap();
    }
    store.delete_blob(last).await.unwrap();
    store.unload().await.unwrap();
    let ids = Ids { thick, thin, snapshot, clone, other };
    (disk.snapshot().visible().clone(), options, ids)
}

/// An operation under test: done once, on a store that was just loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    CreateThick,
    CreateThin,
    Clone,
    Snapshot,
    SnapshotOfClone,
    Delete,
    DeleteMerging,
    DeleteClone,
    GrowThick,
    GrowThin,
    GrowPastMapPage,
    Shrink,
    ShrinkToNothing,
    Sync,
    ReadOnly,
    Inflate,
    Decouple,
    SetParent,
    SuperBlob,
    Type,
    Copy,
    // From here on data changes, in parts.
    WriteNew,
    WriteOverParent,
    WriteMany,
    Zeroes,
    Unmap,
    Flush,
    Unload,
}

const ALL: [What; 28] = [
    What::CreateThick,
    What::CreateThin,
    What::Clone,
    What::Snapshot,
    What::SnapshotOfClone,
    What::Delete,
    What::DeleteMerging,
    What::DeleteClone,
    What::GrowThick,
    What::GrowThin,
    What::GrowPastMapPage,
    What::Shrink,
    What::ShrinkToNothing,
    What::Sync,
    What::ReadOnly,
    What::Inflate,
    What::Decouple,
    What::SetParent,
    What::SuperBlob,
    What::Type,
    What::Copy,
    What::WriteNew,
    What::WriteOverParent,
    What::WriteMany,
    What::Zeroes,
    What::Unmap,
    What::Flush,
    What::Unload,
];

impl What {
    fn is_atomic(self) -> bool {
        (self as u8) < What::WriteNew as u8
    }

    async fn run(self, store: &Blobstore, ids: Ids) -> Result<(), BlobError> {
        match self {
            What::CreateThick => store.create_blob(BlobOptions::thick(4)).await.map(drop),
            What::CreateThin => {
                let options = (0..3).fold(BlobOptions::thin(600), |options, at| {
                    options.xattr(format!("x{at}"), vec![at; 2000])
                });
                store.create_blob(options).await.map(drop)
            }
            What::Clone => store.clone_blob(ids.snapshot, Vec::new()).await.map(drop),
            What::Snapshot => store.snapshot(ids.thick, Vec::new()).await.map(drop),
            What::SnapshotOfClone => store.snapshot(ids.clone, Vec::new()).await.map(drop),
            What::Delete => store.delete_blob(ids.thin).await,
            What::DeleteMerging => store.delete_blob(ids.snapshot).await,
            What::DeleteClone => store.delete_blob(ids.clone).await,
            What::GrowThick => store.open_blob(ids.thick).await?.resize(9).await,
            What::GrowThin => store.open_blob(ids.clone).await?.resize(12).await,
            What::GrowPastMapPage => store.open_blob(ids.thin).await?.resize(1500).await,
            What::Shrink => store.open_blob(ids.thin).await?.resize(3).await,
            What::ShrinkToNothing => store.open_blob(ids.thick).await?.resize(0).await,
            What::Sync => {
                let blob = store.open_blob(ids.thick).await?;
                for at in 0..3 {
                    blob.set_xattr(format!("x{at}"), vec![at; 2000]).await?;
                }
                blob.sync().await
            }
            What::ReadOnly => store.open_blob(ids.thin).await?.set_read_only().await,
            What::Inflate => store.inflate(ids.thin).await,
            What::Decouple => store.decouple_parent(ids.clone).await,
            What::SetParent => store.set_parent(ids.clone, Parent::Snapshot(ids.other)).await,
            What::SuperBlob => store.set_super_blob(Some(ids.thick)).await,
            What::Type => store.set_bs_type(BsType::LVOLSTORE).await,
            What::Copy => {
                let target = Malloc::new("target", 512, 8 * CLUSTER / 512).unwrap();
                store.shallow_copy(ids.snapshot, target, |_, _| {}).await
            }
            What::WriteNew => {
                let blob = store.open_blob(ids.thin).await?;
                blob.write(CLUSTER + 512, IoBuf::copy_from(&[9; 512])).await.0
            }
            What::WriteOverParent => {
                let blob = store.open_blob(ids.clone).await?;
                blob.write(512, IoBuf::copy_from(&[9; 512])).await.0
            }
            What::WriteMany => {
                let blob = store.open_blob(ids.clone).await?;
                blob.write(512, IoBuf::copy_from(&vec![9; 8 * CLUSTER as usize - 1024])).await.0
            }
            What::Zeroes => store.open_blob(ids.clone).await?.write_zeroes(0, 8 * CLUSTER).await,
            What::Unmap => store.open_blob(ids.thin).await?.unmap(512, 8 * CLUSTER - 512).await,
            What::Flush => store.open_blob(ids.thin).await?.flush().await,
            What::Unload => store.unload().await,
        }
    }
}

/// All that can be seen of a store.
type Seen = (Option<BlobId>, BsType, BTreeMap<BlobId, (String, String)>);

async fn seen(store: &Blobstore) -> Seen {
    let mut blobs = BTreeMap::new();
    for id in store.blobs().await.unwrap() {
        let info = store.blob_info(id).await.unwrap();
        let mut info = info;
        info.clones.sort();
        let xattrs: Vec<_> = store.blob_xattrs(id).await.unwrap();
        let xattrs: Vec<_> =
            xattrs.iter().map(|xattr| (xattr.name.escape_ascii().to_string(), xattr.value.len())).collect();
        let blob = store.open_blob(id).await.unwrap();
        let len = blob.size().min(16 * CLUSTER);
        let bytes = support::read(&blob, 0, len).await;
        blob.close().await.unwrap();
        let state = format!(
            "{} clusters, thin {}, read-only {}, parent {:?}, clones {:?}, xattrs {xattrs:?}",
            info.clusters, info.thin, info.read_only, info.parent, info.clones
        );
        blobs.insert(id, (state, sha256(&bytes)));
    }
    let info = store.info().await.unwrap();
    (info.super_blob, info.bs_type, blobs)
}

async fn seen_after_load(disk: &Disk) -> (Seen, u32) {
    check_image(disk.snapshot().visible());
    let store = Blobstore::load(device(disk), LoadOptions::default()).await.unwrap();
    let seen = seen(&store).await;
    let free = store.info().await.unwrap().free_clusters;
    // It works on.
    let id = store.create_blob(BlobOptions::thick(1)).await.unwrap();
    store.delete_blob(id).await.unwrap();
    store.unload().await.unwrap();
    support::check(disk);
    (seen, free)
}

async fn one(
    base: &(Image, DiskOptions, Ids),
    what: What,
    kind: Operation,
    effect: Effect,
    nth: u64,
    (before, after): (&Seen, &Seen),
) -> bool {
    let (image, options, ids) = base;
    let case = format!("{what:?}, {kind:?} {nth}, {effect:?}, atomic unit {}", options.atomic_unit);
    let disk = Disk::from_image(image.clone(), *options);
    let faulty = Faulty::new("disk0", device(&disk));
    let store = Blobstore::load(faulty.clone(), LoadOptions::default()).await.unwrap();
    faulty.inject(&[kind], nth, 1, effect);
    let result = spindle_reactor::timeout(Duration::from_secs(60), what.run(&store, *ids)).await;
    let result = result.unwrap_or_else(|_| panic!("{case}: no end"));
    let hit = faulty.seen() >= nth;
    faulty.clear();
    assert!(hit || result.is_ok(), "{case}: an error without a cause: {result:?}");
    // Clearing what was given back is a courtesy; all else that fails must be told.
    let courtesy = matches!(kind, Operation::Unmap) || kind == Operation::WriteZeroes;
    assert!(!hit || courtesy || result.is_err(), "{case}: not told");
    let poisoned = match store.set_super_blob(None).await {
        Err(BlobError::Poisoned { .. }) => true,
        Ok(()) if what != What::SuperBlob || result.is_err() => false,
        Ok(()) => return hit,
        Err(BlobError::Unloaded { .. }) => true,
        Err(error) => panic!("{case}: {error}"),
    };
    if kind == Operation::Flush && hit {
        assert!(poisoned, "{case}: a flush that failed must stop all changes");
    }
    let mut in_memory = None;
    // What was set and is not on disk yet stays set.
    if !poisoned && (what != What::Sync || result.is_ok()) {
        let now = seen(&store).await;
        if result.is_ok() && what.is_atomic() {
            assert_eq!(&now, after, "{case}");
        } else if what.is_atomic() {
            assert_eq!(&now, before, "{case}: {result:?}, but not as before");
        }
        in_memory = Some((now, store.info().await.unwrap().free_clusters));
    }
    let unloaded = store.unload().await;
    assert!(unloaded.is_ok() || what == What::Unload, "{case}: {unloaded:?}");
    let (loaded, free) = seen_after_load(&disk).await;
    if let Some((now, free_now)) = in_memory {
        assert_eq!(now, loaded, "{case}: what is on disk is not what was in memory");
        assert_eq!(free_now, free, "{case}: clusters leaked");
    } else if what.is_atomic() {
        let new = result.is_ok();
        assert!(
            (&loaded == before && !new) || &loaded == after,
            "{case}: {result:?}, neither nor\n{loaded:#?}"
        );
    }
    hit
}

fn every_fault(whats: &'static [What], atomic_unit: u32) {
    run_on("sim:1", async move || {
        let base = prepare(atomic_unit).await;
        let mut hits = 0_u32;
        for &what in whats {
            let disk = Disk::from_image(base.0.clone(), base.1);
            let before = seen_after_load(&disk).await.0;
            let store = Blobstore::load(device(&disk), LoadOptions::default()).await.unwrap();
            what.run(&store, base.2).await.unwrap();
            if what != What::Unload {
                store.unload().await.unwrap();
            }
            let after = seen_after_load(&disk).await.0;
            for kind in KINDS {
                for effect in [Effect::Fail, Effect::FailAfter] {
                    for nth in 1.. {
                        if !one(&base, what, kind, effect, nth, (&before, &after)).await {
                            break;
                        }
                        hits += 1;
                    }
                }
            }
        }
        assert!(hits > 20 * whats.len() as u32 / 2, "only {hits} faults were met");
        println!("{hits} faults");
    });
}

#[test]
fn every_operation_stands_every_fault_on_disks_that_tear_pages() {
    every_fault(&ALL, 512);
}

#[test]
fn every_operation_stands_every_fault_on_disks_that_write_pages_whole() {
    every_fault(&ALL, 4096);
}

/// A store that was not unloaded, with something to repair, loaded while the n-th request fails.
#[test]
fn a_load_stands_every_fault() {
    run_on("sim:1", async || {
        for atomic_unit in [512, 4096] {
            let (image, options, ids) = prepare(atomic_unit).await;
            let disk = Disk::from_image(image, options);
            let store = Blobstore::load(device(&disk), LoadOptions::default()).await.unwrap();
            // Cut off between the marking of a snapshot and its end.
            let faulty: Arc<Faulty> = Faulty::new("disk0", device(&disk));
            drop(store);
            let store = Blobstore::load(faulty.clone(), LoadOptions::default()).await.unwrap();
            faulty.inject(&[Operation::Flush], 3, 1, Effect::Fail);
            store.delete_blob(ids.snapshot).await.unwrap_err();
            let dirty = disk.snapshot().visible().clone();
            let whole = seen_after_load(&Disk::from_image(dirty.clone(), options)).await;
            for kind in KINDS {
                for nth in 1.. {
                    let disk = Disk::from_image(dirty.clone(), options);
                    let faulty = Faulty::new("disk0", device(&disk));
                    faulty.inject(&[kind], nth, 1, Effect::Fail);
                    let loaded = Blobstore::load(faulty.clone(), LoadOptions::default()).await;
                    let hit = faulty.seen() >= nth;
                    faulty.clear();
                    assert!(hit || loaded.is_ok());
                    if let Ok(store) = loaded {
                        // A page that could not be read sets its blob aside, and blocks what depends on it.
                        for id in [ids.thick, ids.thin, ids.clone, ids.other] {
                            match store.open_blob(id).await {
                                Ok(blob) => blob.close().await.unwrap(),
                                Err(BlobError::Damaged { .. }) if kind == Operation::Read => {}
                                Err(error) => panic!("{kind:?} {nth}: {error}"),
                            }
                        }
                        let _ = store.unload().await;
                    }
                    assert_eq!(seen_after_load(&disk).await, whole, "{kind:?} {nth}");
                    if !hit {
                        break;
                    }
                }
            }
        }
    });
}

#[test]
fn a_snapshot_whose_deletion_failed_never_shows_what_its_clone_writes() {
    run_on("sim:1", async move || {
        for atomic_unit in [512, 4096] {
            let (image, options, ids) = prepare(atomic_unit).await;
            let mut taken_over = 0;
            for nth in 1.. {
                let disk = Disk::from_image(image.clone(), options);
                let faulty = Faulty::new("disk0", device(&disk));
                let store = Blobstore::load(faulty.clone(), LoadOptions::default()).await.unwrap();
                let snapshot = store.open_blob(ids.snapshot).await.unwrap();
                let held = support::read(&snapshot, 0, CLUSTER).await;
                snapshot.close().await.unwrap();
                faulty.inject(&[Operation::Flush], nth, 1, Effect::Fail);
                let deleted = store.delete_blob(ids.snapshot).await;
                let hit = faulty.seen() >= nth;
                faulty.clear();
                if !hit {
                    break;
                }
                deleted.unwrap_err();
                let clone = store.open_blob(ids.clone).await.unwrap();
                // Where the clone has the cluster, no metadata is needed.
                let (written, _) = clone.write(0, IoBuf::zeroed(512)).await;
                match store.open_blob(ids.snapshot).await {
                    Ok(snapshot) => {
                        assert_eq!(support::read(&snapshot, 0, CLUSTER).await, held, "flush {nth}")
                    }
                    Err(_) => taken_over += u32::from(written.is_ok()),
                }
            }
            assert!(taken_over > 0, "no flush failed after the clone had taken the snapshot's clusters over");
        }
    });
}
