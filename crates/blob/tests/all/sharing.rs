//! Blobs whose maps name the same cluster: what can be read of them stays so, and the refusal names both.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use spindle_blob::{BlobError, BlobId, BlobOptions, Blobstore};
use spindle_engine::sim::{Disk, Image};
use spindle_format::{BlobMetadata, Change, ClusterIdx, Loader, MaskKind, PageIdx, Store, chain};
use spindle_mem::IoBuf;

use crate::support::{CLUSTER, byte, disk, disk_again, fill, init, load, read, run_on};

/// How two of the blobs come to share.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Their run-length maps name one cluster.
    Lists,
    /// Their extent pages do.
    Tables,
    /// Their tables name one extent page.
    Page,
    /// The same, and no cluster is named in that page.
    EmptyPage,
    /// The map of one blob names a cluster twice.
    Twice,
}

const KINDS: [Kind; 5] = [Kind::Lists, Kind::Tables, Kind::Page, Kind::EmptyPage, Kind::Twice];

fn loaded(image: &Image) -> Store {
    let mut loader = Loader::new(image.size(), Default::default());
    while let Some(range) = loader.next_read() {
        let mut bytes = vec![0; range.len];
        image.read(range.offset, &mut bytes);
        loader.supply(range, &bytes);
    }
    loader.finish().unwrap()
}

fn apply(image: &mut Image, change: Change) {
    let Change::Write { offset, bytes } = change else { panic!("pages are written") };
    image.write(offset, &bytes);
}

/// Writes what a blob says of itself, which has a chain of one page.
fn rewrite(image: &mut Image, store: &Store, id: BlobId, metadata: &BlobMetadata) {
    let (mut pages, root) = (chain::to_pages(id, metadata), id.root_page().unwrap());
    chain::link(&mut pages, &[root]);
    apply(image, pages[0].write(root, &store.geometry));
    for leaf in metadata.map.leaves() {
        if let Some(page) = leaf.page {
            let bytes = chain::extent_page(id, leaf.first_cluster() as u32, &leaf.clusters.to_vec());
            apply(image, bytes.write(page, &store.geometry));
        }
    }
}

/// A store with three thin blobs of four clusters, of which each has the first two; the first two blobs share, the
/// third stands apart.
async fn store_of(kind: Kind) -> (Disk, [BlobId; 3]) {
    let disk = disk(8);
    let store = init(&disk).await;
    let mut ids = Vec::new();
    for value in 1..=3 {
        let options = BlobOptions { extent_table: !matches!(kind, Kind::Lists), ..BlobOptions::thin(4) };
        let id = store.create_blob(options).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        match kind {
            Kind::EmptyPage if value < 3 => {
                fill(&blob, 0, CLUSTER, value).await;
                blob.unmap(0, CLUSTER).await.unwrap();
            }
            _ => fill(&blob, 0, 2 * CLUSTER, value).await,
        }
        blob.close().await.unwrap();
        ids.push(id);
    }
    store.unload().await.unwrap();
    let mut image = disk.snapshot().visible().clone();
    let store = loaded(&image);
    let ids: [BlobId; 3] = ids.try_into().unwrap();
    let of = |id: BlobId| store.blob(id).unwrap().metadata.clone();
    let (first, mut second) = (of(ids[0]), of(ids[1]));
    match kind {
        Kind::Lists | Kind::Tables => second.map.set(2, first.map.get(1)),
        Kind::Page | Kind::EmptyPage => {
            let page: PageIdx = first.map.extent_pages().next().unwrap().1;
            second.map = first.map.clone();
            second.map.set_extent_page(0, page);
        }
        Kind::Twice => {
            let cluster: Option<ClusterIdx> = second.map.get(0);
            second.map.set(3, cluster);
        }
    }
    rewrite(&mut image, &store, ids[1], &second);
    (disk_again(image), ids)
}

/// All that the blobs hold.
async fn contents(store: &Blobstore, ids: [BlobId; 3]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for id in ids {
        let blob = store.open_blob(id).await.unwrap();
        all.push(read(&blob, 0, blob.size()).await);
        blob.close().await.unwrap();
    }
    all
}

/// Everything that would change the data of a blob.
async fn tries(store: &Blobstore, id: BlobId) -> Vec<(&'static str, BlobError)> {
    let blob = store.open_blob(id).await.unwrap();
    let bytes = |len: u64| IoBuf::copy_from(&vec![9; len as usize]);
    let mut refused = Vec::new();
    let channel = blob.channel().unwrap();
    for offset in (0..4).map(|index| index * CLUSTER) {
        refused.push(("write", blob.write(offset, bytes(512)).await.0.unwrap_err()));
        refused.push(("write of a cluster", blob.write(offset, bytes(CLUSTER)).await.0.unwrap_err()));
        refused.push(("write by a channel", channel.write(offset, bytes(512)).await.0.unwrap_err()));
        refused.push(("write with FUA", channel.write(offset, bytes(512)).fua().await.0.unwrap_err()));
        refused.push(("zeroes", blob.write_zeroes(offset, 512).await.unwrap_err()));
        refused.push(("unmap of a part", blob.unmap(offset, 512).await.unwrap_err()));
        refused.push(("unmap", blob.unmap(offset, CLUSTER).await.unwrap_err()));
    }
    refused.push(("write across clusters", blob.write(512, bytes(2 * CLUSTER)).await.0.unwrap_err()));
    drop(channel);
    blob.close().await.unwrap();
    refused
}

#[test]
fn what_is_written_to_a_parent_that_is_not_read_only_is_refused_and_the_refusal_names_the_clone() {
    run_on("sim:1", async || {
        let disk = disk(8);
        let store = init(&disk).await;
        let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, 2 * CLUSTER, 1).await;
        blob.close().await.unwrap();
        let snapshot = store.snapshot(id, Vec::new()).await.unwrap();
        store.unload().await.unwrap();
        let mut image = disk.snapshot().visible().clone();
        let loaded = loaded(&image);
        let mut metadata = loaded.blob(snapshot).unwrap().metadata.clone();
        metadata.flags.data_read_only = 0;
        rewrite(&mut image, &loaded, snapshot, &metadata);
        let store = load(&disk_again(image)).await;
        let ids = [id, snapshot, snapshot];
        let before = contents(&store, ids).await;
        for (what, error) in tries(&store, snapshot).await {
            let named =
                matches!(error, BlobError::WritableParent { blob, clone } if (blob, clone) == (snapshot, id));
            assert!(named, "{what}: {error}");
        }
        let blob = store.open_blob(snapshot).await.unwrap();
        assert!(
            blob.resize(1).await.is_err() && blob.resize(5).await.is_err() && blob.replace().await.is_err()
        );
        blob.close().await.unwrap();
        assert_eq!(contents(&store, ids).await, before);
        // Its clone is its own.
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, 512, 9).await;
        blob.close().await.unwrap();
        store.unload().await.unwrap();
    });
}

#[test]
fn what_is_written_to_one_of_two_owners_of_a_cluster_is_refused_and_the_refusal_names_both() {
    for kind in KINDS {
        run_on("sim:1", async move || {
            let (disk, ids) = store_of(kind).await;
            let store = load(&disk).await;
            let before = contents(&store, ids).await;
            let sharing = match kind {
                Kind::Twice => vec![(ids[1], ids[1])],
                _ => vec![(ids[0], ids[1]), (ids[1], ids[0])],
            };
            for (id, with) in sharing {
                for (what, error) in tries(&store, id).await {
                    let named = matches!(error, BlobError::SharesClusters { blob, other } if (blob, other) == (id, with));
                    assert!(named, "{kind:?}, {what}: {error}");
                    let said = error.to_string();
                    let words = [&id.to_string(), &with.to_string(), "spindle blob check"];
                    assert!(words.iter().all(|word| said.contains(*word)), "{said}");
                }
                let blob = store.open_blob(id).await.unwrap();
                assert!(blob.resize(5).await.is_err() && blob.resize(1).await.is_err());
                assert!(blob.replace().await.is_err());
                blob.close().await.unwrap();
                assert!(store.snapshot(id, Vec::new()).await.is_err());
                assert!(store.inflate(id).await.is_err());
                assert!(store.delete_blob(id).await.is_err());
                assert!(!store.blob_info(id).await.unwrap().read_only, "its flags do not say so");
            }
            assert_eq!(contents(&store, ids).await, before, "{kind:?}");
            // What has nothing to do with it can be written where that needs no space.
            let blob = store.open_blob(ids[2]).await.unwrap();
            fill(&blob, 0, 512, 9).await;
            assert_eq!(byte(&blob, 0, 512).await, 9);
            let no_space = blob.write(3 * CLUSTER, IoBuf::zeroed(512)).await.0.unwrap_err();
            assert!(matches!(no_space, BlobError::AllocationBlocked { .. }), "{no_space}");
            blob.close().await.unwrap();
            store.unload().await.unwrap();
            let store = load(&disk).await;
            assert_eq!(contents(&store, ids).await[..2], before[..2], "{kind:?}");
            store.unload().await.unwrap();
        });
    }
}

#[test]
fn a_new_blob_never_gets_the_id_of_a_damaged_one_whose_page_was_another_blobs() {
    run_on("epoll", async || {
        let before = disk(8);
        let store = init(&before).await;
        let id = store.create_blob(BlobOptions::thin(4)).await.unwrap();
        let blob = store.open_blob(id).await.unwrap();
        fill(&blob, 0, CLUSTER, 1).await;
        blob.close().await.unwrap();
        store.unload().await.unwrap();
        // The mask of blob ids lists the page of the blob's map too, as after a write that the disk lost.
        let mut image = before.snapshot().visible().clone();
        let seen = loaded(&image);
        let (_, page) = seen.blobs[&id].metadata.map.extent_pages().next().unwrap();
        let (mask, _) = seen.geometry.bytes_of(seen.geometry.mask(MaskKind::UsedBlobIds));
        let (at, mut bits) = (mask + 5 + u64::from(page.0 / 8), [0]);
        image.read(at, &mut bits);
        image.write(at, &[bits[0] | 1 << (page.0 % 8)]);
        let store = load(&disk_again(image)).await;
        let damaged = BlobId::from_page(page);
        assert_eq!(store.info().await.unwrap().damaged, [damaged]);
        store.delete_blob(id).await.unwrap();
        for _ in 0..8 {
            let made = store.create_blob(BlobOptions::thin(1)).await.unwrap();
            assert_ne!(made, damaged);
        }
        store.unload().await.unwrap();
    });
}
