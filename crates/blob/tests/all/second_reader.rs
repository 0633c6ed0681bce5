//! A store that SPDK wrote, changed by this one and cut off at every write: the independent reader
//! (`tests/reader`), which follows the rules of SPDK's loader, accepts what is there and finds every blob as
//! it was before the operation or as it is after it.
//!
//! On a disk that writes pages whole: SPDK promises nothing on others.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use spindle_blob::{BlobId, Blobstore, LoadOptions};
use spindle_block::SimDisk;
use spindle_engine::sim::{Crash, Disk, DiskOptions, Image, State};
use spindle_mem::IoBuf;
use support::{fixture, fixtures, run_on, sha256};

const MIB: u64 = 1 << 20;

/// What blobs read, by their ids.
type Contents = BTreeMap<u64, String>;

/// Stores an image; what is zero takes no space.
fn store(image: &Image, path: PathBuf) -> PathBuf {
    let file = File::create(&path).unwrap();
    file.set_len(image.size()).unwrap();
    let mut chunk = vec![0; 64 << 10];
    for offset in (0..image.size()).step_by(chunk.len()) {
        image.read(offset, &mut chunk);
        if chunk.iter().any(|&byte| byte != 0) {
            file.write_all_at(&chunk, offset).unwrap();
        }
    }
    path
}

/// What the reader finds in each of these images. All must be accepted.
fn judged(images: &[Image], folder: &Path) -> Vec<Contents> {
    let files: Vec<PathBuf> =
        images.iter().enumerate().map(|(at, image)| store(image, folder.join(at.to_string()))).collect();
    let reader = fixtures().join("../reader");
    let run = Command::new("python3").arg(reader).args(files).output();
    let run = run.expect("python3 is there: tests/run installs it");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let lines = String::from_utf8(run.stdout).unwrap();
    let seen: Vec<Contents> = lines.lines().map(contents).collect();
    assert_eq!(seen.len(), images.len());
    seen
}

fn contents(line: &str) -> Contents {
    let seen: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(seen["accepted"], true, "{}", seen["reason"]);
    assert_eq!(seen["unopened"], serde_json::json!({}));
    let blobs = seen["blobs"].as_array().unwrap().iter();
    blobs.map(|blob| (blob["id"].as_u64().unwrap(), blob["sha256"].as_str().unwrap().to_owned())).collect()
}

/// What the disk may be after a crash at this moment.
fn crashes(states: &[State]) -> Vec<Image> {
    let mut choose = |n: usize| (spindle_reactor::random() % n as u64) as usize;
    let mut images = Vec::new();
    for (at, state) in states.iter().enumerate() {
        images.push(state.crash(Crash::Random, &mut choose));
        if at % 2 == 0 {
            images.push(state.crash(Crash::LoseAll, &mut choose));
        }
    }
    images
}

/// Judges every crash of an operation by the states before and after it.
fn judge(what: &str, before: &Image, states: &[State], after: &Image) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let ends = judged(&[before.clone(), after.clone()], folder.path());
    let crashed = crashes(states);
    for some in crashed.chunks(16) {
        for seen in judged(some, folder.path()) {
            for (id, hash) in &seen {
                let known = ends.iter().any(|end| end.get(id) == Some(hash));
                assert!(known, "{what}: blob {id:#x} reads neither as before nor as after it");
            }
            let lost = ends[0].keys().filter(|id| ends[1].contains_key(id) && !seen.contains_key(id));
            assert_eq!(lost.collect::<Vec<_>>(), [] as [&u64; 0], "{what}: a blob is lost");
        }
    }
    crashed.len()
}

/// Does something to a store and judges every crash that could cut it off.
async fn cut_off(
    what: &str,
    disk: &Disk,
    store: &Blobstore,
    operation: impl AsyncFnOnce(&Blobstore),
) -> usize {
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = states.clone();
    disk.flush().unwrap();
    let before = disk.snapshot().visible().clone();
    disk.observe(move |_, state| seen.lock().unwrap().push(state.clone()));
    operation(store).await;
    disk.unobserve();
    let states = std::mem::take(&mut *states.lock().unwrap());
    judge(what, &before, &states, disk.snapshot().visible())
}

/// The blobs of the fixture and what SPDK read in them, by what their xattr "name" says.
fn named() -> BTreeMap<&'static str, (BlobId, String)> {
    let manifest = std::fs::read_to_string(fixtures().join("hello.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let blobs = manifest["blobs"].as_array().unwrap();
    let named = ["alpha", "beta", "delta", "epsilon", "eta", "theta"].map(|name| {
        let hex: String = name.bytes().chain([0]).map(|byte| format!("{byte:02x}")).collect();
        let blob = blobs.iter().find(|blob| blob["xattrs_hex"]["name"] == hex.as_str()).unwrap();
        let id = BlobId::from_raw(blob["blob_id"].as_u64().unwrap());
        (name, (id, blob["sha256"].as_str().unwrap().to_owned()))
    });
    named.into()
}

#[test]
fn a_store_of_spdks_that_is_changed_and_cut_off_is_what_spdk_accepts() {
    let points = run_on("sim:1", async || {
        let image = fixture("hello");
        let options = DiskOptions { block: 512, atomic_unit: 4096, ..DiskOptions::new(image.size()) };
        let disk = Disk::from_image(image, options);
        let device = SimDisk::new("hello", disk.clone(), 1).unwrap();
        let store = Blobstore::load(device, LoadOptions::default()).await.unwrap();
        let names = named();
        let id = |name: &str| names[name].0;
        let write = async |store: &Blobstore, name: &str, offset: u64| {
            let blob = store.open_blob(id(name)).await.unwrap();
            // One atomic unit: it is old or new.
            blob.write(offset, IoBuf::copy_from(&[0xab; 4096])).await.0.unwrap();
            blob.flush().await.unwrap();
            blob.close().await.unwrap();
        };
        let resize = async |store: &Blobstore, name: &str, clusters: u64| {
            let blob = store.open_blob(id(name)).await.unwrap();
            blob.resize(clusters).await.unwrap();
            blob.close().await.unwrap();
        };
        let hole = async |name: &str| {
            let blob = store.open_blob(id(name)).await.unwrap();
            let hole = blob.next_unallocated(0).unwrap();
            blob.close().await.unwrap();
            hole
        };
        let mut points = 0;
        // The first change also says that the store is in use.
        let at = hole("beta").await;
        points += cut_off("thin write", &disk, &store, async |store| write(store, "beta", at).await).await;
        let at = hole("alpha").await;
        points +=
            cut_off("copy on write", &disk, &store, async |store| write(store, "alpha", at).await).await;
        let snapshot = async |store: &Blobstore| {
            store.snapshot(id("epsilon"), Vec::new()).await.unwrap();
        };
        points += cut_off("snapshot", &disk, &store, snapshot).await;
        points += cut_off("grow", &disk, &store, async |store| resize(store, "epsilon", 8).await).await;
        points += cut_off("shrink", &disk, &store, async |store| resize(store, "delta", 1).await).await;
        points +=
            cut_off("delete", &disk, &store, async |store| store.delete_blob(id("eta")).await.unwrap()).await;
        // Only alpha reads through it now.
        let parent = store.blob_info(id("alpha")).await.unwrap().parent;
        let Some(spindle_blob::Parent::Snapshot(parent)) = parent else { panic!("alpha is a clone") };
        points += cut_off("delete a snapshot", &disk, &store, async |store| {
            store.delete_blob(parent).await.unwrap();
        })
        .await;
        points += cut_off("unload", &disk, &store, async |store| store.unload().await.unwrap()).await;

        // Unchanged data reads as SPDK read it.
        let store = Blobstore::load(SimDisk::immediate("hello", disk).unwrap(), LoadOptions::default());
        let store = store.await.unwrap();
        let blob = store.open_blob(id("theta")).await.unwrap();
        let bytes = support::read(&blob, 0, blob.size()).await;
        assert_eq!((bytes.len() as u64, sha256(&bytes)), (MIB, names["theta"].1.clone()));
        points
    });
    assert!(points > 60, "only {points} crashes");
}
