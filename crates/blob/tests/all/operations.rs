//! Single operations and what each promises.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::{Arc, Mutex};

use spindle_blob::{
    BlobError, BlobOpenOptions, BlobOptions, Blobstore, BsType, ClearMethod, InitOptions, LoadOptions,
    MdPages, Parent, StoreOptions,
};
use spindle_block::Malloc;
use spindle_format::{chain, metadata::internal};
use spindle_mem::IoBuf;
use support::{
    CLUSTER, byte, check, check_image, device, disk, fill, init, load, run_everywhere, run_on, slow_device,
    small, small_with,
};

#[test]
fn a_blob_made_read_only_lets_writes_under_way_end_and_no_later_one_in() {
    for seed in 0..16 {
        run_on(&format!("sim:{seed}"), async move || {
            let disk = disk(8);
            let store = Blobstore::init(slow_device(&disk, seed), small()).await.unwrap();
            let id = store.create_blob(BlobOptions::thin(64)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            fill(&blob, 0, 8 * CLUSTER, 1).await;
            let writes: Vec<_> = (0..64_u64)
                .map(|index| {
                    let blob = blob.clone();
                    spindle_reactor::spawn_local(async move {
                        blob.write(index * CLUSTER, IoBuf::copy_from(&[2; 512])).await.0
                    })
                })
                .collect();
            let resized = blob.clone();
            let other = spindle_reactor::spawn_local(async move { resized.set_xattr("name", "x").await });
            blob.set_read_only().await.unwrap();
            let mut states = Vec::new();
            for index in 0..64 {
                states.push(support::read(&blob, index * CLUSTER, 512).await);
            }
            for (index, write) in writes.into_iter().enumerate() {
                let written = states[index].iter().all(|&byte| byte == 2);
                match write.await.unwrap() {
                    Ok(()) => assert!(written, "{index}"),
                    Err(BlobError::ReadOnly { .. }) => assert!(!written, "{index}"),
                    Err(error) => panic!("{error}"),
                }
            }
            for (index, state) in states.iter().enumerate() {
                let now = support::read(&blob, index as u64 * CLUSTER, 512).await;
                assert_eq!(&now, state, "nothing changes any more");
            }
            drop(other.await.unwrap());
            let again = load(&disk).await;
            assert!(again.blob_info(id).await.unwrap().read_only, "it is durable");
        });
    }
}

#[test]
fn a_blob_opened_with_a_clear_method_gives_back_by_it() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let options = BlobOpenOptions { clear_method: Some(ClearMethod::None) };
        let blob = store.open_blob_with(id, options).await.unwrap();
        fill(&blob, 0, CLUSTER, 0x77).await;
        blob.resize(0).await.unwrap();
        let image = disk.snapshot().visible().to_bytes();
        assert_eq!(image.iter().filter(|&&byte| byte == 0x77).count() as u64 / CLUSTER, 1, "not cleared");
        blob.resize(4).await.unwrap();
        fill(&blob, 512, 512, 1).await;
        assert_eq!(byte(&blob, 1024, 4 * CLUSTER - 1024).await, 0, "and never seen again");
    });
}

#[test]
fn allocated_places_are_found() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(10)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 3 * CLUSTER, 2 * CLUSTER, 1).await;
        fill(&blob, 7 * CLUSTER, 512, 1).await;
        assert_eq!(blob.allocated_ranges().await.unwrap(), [(3, 2), (7, 1)]);
        assert_eq!(blob.next_allocated(0), Some(3 * CLUSTER));
        assert_eq!(blob.next_allocated(4 * CLUSTER + 512), Some(4 * CLUSTER + 512));
        assert_eq!(blob.next_allocated(8 * CLUSTER), None);
        assert_eq!(blob.next_unallocated(512), Some(512));
        assert_eq!(blob.next_unallocated(3 * CLUSTER + 1), Some(5 * CLUSTER));
        assert_eq!(blob.next_unallocated(10 * CLUSTER), None);
        let other = store.create_blob(BlobOptions::thin(1)).await.unwrap();
        assert_eq!(store.next_blob(None).await.unwrap(), Some(id));
        assert_eq!(store.next_blob(Some(id)).await.unwrap(), Some(other));
        assert_eq!(store.next_blob(Some(other)).await.unwrap(), None);
    });
}

#[test]
fn a_destroyed_store_is_gone() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thick(2)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        assert!(matches!(store.destroy().await, Err(BlobError::BlobsOpen { open: 1, .. })));
        fill(&blob, 0, 512, 1).await;
        blob.close().await.unwrap();
        store.destroy().await.unwrap();
        assert!(matches!(store.blobs().await, Err(BlobError::Unloaded { .. })));
        let again = Blobstore::load(device(&disk), LoadOptions::default()).await;
        assert!(matches!(again, Err(BlobError::Load { .. })));
        init(&disk).await;
    });
}

#[test]
fn a_store_is_loaded_only_as_the_type_it_has() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        store.set_bs_type(BsType::LVOLSTORE).await.unwrap();
        store.unload().await.unwrap();
        let as_type = |bs_type| LoadOptions { bs_type: Some(bs_type), ..LoadOptions::default() };
        let wrong = Blobstore::load(device(&disk), as_type(BsType::default())).await;
        assert!(matches!(wrong, Err(BlobError::Load { .. })));
        let store = Blobstore::load(device(&disk), as_type(BsType::LVOLSTORE)).await.unwrap();
        assert_eq!(store.info().await.unwrap().bs_type, BsType::LVOLSTORE);
        store.unload().await.unwrap();

        // Recovery by force ends with what the masks said.
        let seen = Arc::new(Mutex::new(Vec::new()));
        let steps = seen.clone();
        let options = LoadOptions {
            force_recover: true,
            progress: Some(Arc::new(move |step| steps.lock().unwrap().push(step))),
            ..LoadOptions::default()
        };
        let store = Blobstore::load(device(&disk), options).await.unwrap();
        assert!(store.info().await.unwrap().recovered);
        let seen = seen.lock().unwrap();
        assert!(
            seen.len() >= 2 && seen.is_sorted_by_key(|step| (step.repairs.0, step.bytes_read)),
            "{seen:?}"
        );
        let last = seen.last().unwrap();
        assert!(last.bytes_read > 0 && last.bytes_read <= last.bytes_total, "{seen:?}");
    });
}

#[test]
fn a_snapshot_can_be_put_under_another_parent_and_freed_from_it() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(3)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, CLUSTER, 1).await;
        let old = store.snapshot(id, Vec::new()).await.unwrap();
        fill(&blob, CLUSTER, CLUSTER, 2).await;
        let young = store.snapshot(id, Vec::new()).await.unwrap();
        store.decouple_parent(young).await.unwrap();
        assert_eq!(store.blob_info(young).await.unwrap().parent, None);
        assert_eq!((byte(&blob, 0, CLUSTER).await, byte(&blob, CLUSTER, CLUSTER).await), (1, 2));
        store.delete_blob(old).await.unwrap();
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        check(&disk);
    });
}

#[test]
fn an_external_parent_is_checked_before_anything_changes() {
    run_everywhere(async || {
        let outside = Malloc::new("outside", 512, 4 * CLUSTER / 512).unwrap();
        let ragged = Malloc::new("ragged", 512, CLUSTER / 512 + 1).unwrap();
        let channel = spindle_block::Channel::open(outside.clone()).unwrap();
        channel.write(0, IoBuf::copy_from(&vec![7; 4 * CLUSTER as usize])).await.0.unwrap();
        let external: spindle_blob::ExternalSource = Arc::new(move |id| match id {
            b"outside" => Some(outside.clone() as _),
            b"ragged" => Some(ragged.clone() as _),
            _ => None,
        });
        let disk = disk(8);
        let store_options = StoreOptions { external: Some(external), ..StoreOptions::default() };
        let options = InitOptions { store: store_options, ..small() };
        let store = Blobstore::init(device(&disk), options).await.unwrap();
        let thick = store.create_blob(BlobOptions::thick(4)).await.unwrap();
        let thin = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let to = |id: &[u8]| Parent::External(id.to_vec());
        let own_id = thin.raw().to_le_bytes();
        for (blob, id) in [(thick, &b"outside"[..]), (thin, b"ragged"), (thin, b""), (thin, &own_id)] {
            let refused = store.set_parent(blob, to(id)).await;
            assert!(matches!(refused, Err(BlobError::Refused { .. })), "{refused:?}");
        }
        let missing = store.set_parent(thin, to(b"elsewhere")).await;
        assert!(matches!(missing, Err(BlobError::MissingParent { .. })));
        let blob = store.open_blob(thin).await.unwrap();
        fill(&blob, CLUSTER, CLUSTER, 1).await;
        store.set_parent(thin, to(b"outside")).await.unwrap();
        assert_eq!((byte(&blob, 0, CLUSTER).await, byte(&blob, CLUSTER, CLUSTER).await), (7, 1));
        let again = store.set_parent(thin, to(b"outside")).await;
        assert!(matches!(again, Err(BlobError::Refused { .. })));
        store.inflate(thin).await.unwrap();
        let info = blob.info().await.unwrap();
        assert_eq!((info.parent, info.thin, info.allocated), (None, false, 4));
        assert_eq!(byte(&blob, 2 * CLUSTER, 2 * CLUSTER).await, 7);
    });
}

#[test]
fn an_inflate_or_decoupling_that_is_stopped_keeps_what_it_copied_and_the_next_goes_on_from_there() {
    run_everywhere(async || {
        let disk = disk(16);
        let store = Blobstore::init(device(&disk), small()).await.unwrap();
        for inflates in [true, false] {
            let id = store.create_blob(BlobOptions::thin(40)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            fill(&blob, 0, 40 * CLUSTER, 7).await;
            let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
            blob.close().await.unwrap();
            let left = Arc::new(Mutex::new(2));
            let goes_on = move || {
                let mut left = left.lock().unwrap();
                *left -= 1;
                *left >= 0
            };
            let stopped = match inflates {
                true => store.inflate_while(id, goes_on).await,
                false => store.decouple_parent_while(id, goes_on).await,
            };
            assert!(matches!(stopped, Err(BlobError::Stopped { blob }) if blob == id), "{stopped:?}");
            let info = store.blob_info(id).await.unwrap();
            assert_eq!(info.parent, Some(Parent::Snapshot(snapshot)));
            assert!((1..40).contains(&info.allocated) && info.thin, "{info:?}");
            let blob = store.open_blob(id).await.unwrap();
            assert_eq!(byte(&blob, 0, 40 * CLUSTER).await, 7);
            match inflates {
                true => store.inflate(id).await.unwrap(),
                false => store.decouple_parent(id).await.unwrap(),
            }
            assert_eq!(store.blob_info(id).await.unwrap().parent, None);
            assert_eq!(byte(&blob, 0, 40 * CLUSTER).await, 7);
            blob.close().await.unwrap();
            store.delete_blob(snapshot).await.unwrap();
            store.delete_blob(id).await.unwrap();
        }
        store.unload().await.unwrap();
        check(&disk);
    });
}

#[test]
fn a_clone_reads_its_external_parent_whatever_else_spdk_left_in_it() {
    run_everywhere(async || {
        let outside = Malloc::new("outside", 512, 4 * CLUSTER / 512).unwrap();
        let channel = spindle_block::Channel::open(outside.clone()).unwrap();
        channel.write(0, IoBuf::copy_from(&vec![7; 4 * CLUSTER as usize])).await.0.unwrap();
        let external: spindle_blob::ExternalSource = Arc::new(move |_| Some(outside.clone() as _));
        let store_options = StoreOptions { external: Some(external), ..StoreOptions::default() };
        let disk = disk(8);
        let options = InitOptions { store: store_options.clone(), ..small() };
        let store = Blobstore::init(device(&disk), options).await.unwrap();
        let other = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let clone = BlobOptions { external_snapshot: Some(b"outside".to_vec()), ..BlobOptions::thin(4) };
        let clone = store.create_blob(clone).await.unwrap();
        store.unload().await.unwrap();
        // SPDK does not take this link off when it deletes a snapshot between a clone and what is outside.
        let loaded = check(&disk);
        let mut meta = loaded.blob(clone).unwrap().metadata.clone();
        meta.set_internal(internal::SNAPSHOT, &other.raw().to_le_bytes()).unwrap();
        let root = clone.root_page().unwrap();
        let mut pages = chain::to_pages(clone, &meta);
        chain::link(&mut pages, &[root]);
        disk.write(loaded.geometry.page_offset(root), pages[0].bytes()).unwrap();

        let options = LoadOptions { store: store_options, ..LoadOptions::default() };
        let store = Blobstore::load(device(&disk), options).await.unwrap();
        let parent = Some(Parent::External(b"outside".to_vec()));
        assert_eq!(store.blob_info(clone).await.unwrap().parent, parent);
        assert_eq!(store.blob_info(other).await.unwrap().clones, []);
        let blob = store.open_blob(clone).await.unwrap();
        fill(&blob, CLUSTER, 512, 1).await;
        assert_eq!(byte(&blob, CLUSTER + 512, CLUSTER - 512).await, 7);
        store.inflate(clone).await.unwrap();
        assert_eq!(byte(&blob, 2 * CLUSTER, 2 * CLUSTER).await, 7);
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        assert_eq!(check(&disk).blob(clone).unwrap().metadata.internal.iter().count(), 0);
    });
}

#[test]
fn an_operation_that_panics_poisons_the_store_and_nothing_else() {
    run_everywhere(async || {
        let external: spindle_blob::ExternalSource = Arc::new(|_| panic!("the source fell over"));
        let disk = disk(8);
        let store_options = StoreOptions { external: Some(external), ..StoreOptions::default() };
        let store =
            Blobstore::init(device(&disk), InitOptions { store: store_options, ..small() }).await.unwrap();
        let other = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let blob = store.open_blob(other).await.unwrap();
        fill(&blob, 0, 512, 1).await;
        let clone = BlobOptions { external_snapshot: Some(b"outside".to_vec()), ..BlobOptions::thin(4) };
        let id = store.create_blob(clone).await.unwrap();
        assert!(matches!(store.open_blob(id).await, Err(BlobError::Poisoned { .. })));
        assert!(matches!(store.delete_blob(id).await, Err(BlobError::Poisoned { .. })));
        assert_eq!(byte(&blob, 0, 512).await, 1, "reading goes on");
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        let store = load(&disk).await;
        assert!(store.info().await.unwrap().recovered);
        store.delete_blob(id).await.unwrap();
    });
}

#[test]
fn a_snapshot_for_which_the_pages_run_out_leaves_everything_as_it_was() {
    run_everywhere(async || {
        // Blobs with long chains until no page is left, and then snapshots of a blob with a long chain.
        for spare in 0..12_usize {
            let disk = disk(8);
            let store = Blobstore::init(device(&disk), small_with(MdPages::Count(48))).await.unwrap();
            let long = |count: usize| {
                (0..count).fold(BlobOptions::thin(8), |options, at| {
                    options.xattr(format!("x{at}"), vec![at as u8; 3000])
                })
            };
            let id = store.create_blob(long(4)).await.unwrap();
            let blob = store.open_blob(id).await.unwrap();
            fill(&blob, 0, CLUSTER, 1).await;
            while store.create_blob(BlobOptions::thin(1)).await.is_ok() {}
            let blobs = store.blobs().await.unwrap();
            for extra in blobs.iter().rev().filter(|&&one| one != id).take(spare) {
                store.delete_blob(*extra).await.unwrap();
            }
            let before = (store.blobs().await.unwrap(), store.info().await.unwrap().used_md_pages);
            match store.snapshot(id, (0..3).map(|at| (vec![b'a' + at], vec![at; 3000])).collect()).await {
                Ok(snapshot) => {
                    let info = store.blob_info(snapshot).await.unwrap();
                    assert_eq!((info.read_only, info.clones), (true, vec![id]));
                }
                Err(BlobError::OutOfMetadata { .. }) => {
                    let mut after = (store.blobs().await.unwrap(), store.info().await.unwrap().used_md_pages);
                    // Copies of pages that were rewritten in place are pages in use.
                    after.1 = after.1.min(before.1);
                    assert_eq!(after, before);
                    assert_eq!(blob.info().await.unwrap().parent, None);
                }
                Err(error) => panic!("{error}"),
            }
            fill(&blob, CLUSTER, CLUSTER, 2).await;
            assert_eq!((byte(&blob, 0, CLUSTER).await, byte(&blob, CLUSTER, CLUSTER).await), (1, 2));
            blob.close().await.unwrap();
            store.unload().await.unwrap();
            check(&disk);
        }
    });
}

#[test]
fn a_ratio_of_metadata_pages_is_kept_and_then_they_run_out() {
    run_everywhere(async || {
        let disk = disk(8);
        let store =
            Blobstore::init(device(&disk), small_with(MdPages::PerHundredClusters(25))).await.unwrap();
        assert_eq!(store.info().await.unwrap().md_pages, 32);
        let mut made = Vec::new();
        let error = loop {
            match store.create_blob(BlobOptions::thin(1)).await {
                Ok(id) => made.push(id),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BlobError::OutOfMetadata { needed: 1, .. }), "{error}");
        // Some are kept back for what gives space back.
        store.delete_blob(made[0]).await.unwrap();
        store.create_blob(BlobOptions::thin(1)).await.unwrap();
    });
}

#[test]
fn a_snapshot_that_cannot_be_deleted_for_want_of_metadata_pages_stays_the_super_blob() {
    run_everywhere(async || {
        let disk = disk(8);
        let store = Blobstore::init(device(&disk), small_with(MdPages::Count(20))).await.unwrap();
        let slot = 512 * CLUSTER;
        let id = store.create_blob(BlobOptions::thin(4 * 512)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        // Both have something in each part of the map.
        for at in 0..4 {
            fill(&blob, at * slot, CLUSTER, 1).await;
        }
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        for at in 0..4 {
            fill(&blob, at * slot + CLUSTER, CLUSTER, 2).await;
        }
        // The map can be written in place; each page of a chain but the root takes a free page.
        for name in ["one", "two", "three", "four"] {
            blob.set_xattr(name, vec![7; 3000]).await.unwrap();
        }
        blob.sync().await.unwrap();
        store.set_super_blob(Some(snapshot)).await.unwrap();
        while store.create_blob(BlobOptions::thin(1)).await.is_ok() {}
        let error = store.delete_blob(snapshot).await.unwrap_err();
        assert!(matches!(error, BlobError::OutOfMetadata { .. }), "{error}");
        assert_eq!(store.super_blob().await.unwrap(), Some(snapshot));
        assert_eq!(blob.info().await.unwrap().parent, Some(Parent::Snapshot(snapshot)));
        let left = check_image(disk.snapshot().durable());
        assert_eq!(left.super_block.super_blob, Some(snapshot), "also after a crash");
        assert_eq!(byte(&blob, 0, CLUSTER).await, 1);
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        check(&disk);
    });
}
