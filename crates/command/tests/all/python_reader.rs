//! The second, independent reader (`tests/reader`, Python, written from docs/format.md alone) agrees with
//! what SPDK read back from its own stores, and accepts what our store writes.

use std::path::Path;
use std::process::Command;

use super::cli_blob::support::{self, Image, manifest, unpack};
use serde_json::Value;
use spindle::block::{File, FileOptions};
use spindle::engine::EngineKind;
use spindle::{BlobOptions, Blobstore, InitOptions, IoBuf, Runtime};

const EXTERNAL: &str = "3f1f3c1e-8f0a-4d5e-9b8e-00000000e5a0";

/// What the Python reader says of an image. It never ends in a traceback.
fn read(image: &Path, external: Option<&Path>) -> Value {
    let mut command = Command::new("python3");
    command.arg(crate::root().join("tests/reader"));
    if let Some(path) = external {
        command.arg("--esnap").arg(format!("{EXTERNAL}={}", path.display()));
    }
    let run = command.arg(image).output().expect("python3 is there: tests/run installs it");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

/// The blobs that SPDK's manifest lists, with the fields that both name.
fn expected(manifest: &Value) -> Vec<(u64, u64, bool, String)> {
    let bare = manifest["blobs"].as_array().cloned().unwrap_or_default();
    let stores = manifest["lvstores"].as_array().cloned().unwrap_or_default();
    let volumes = stores.iter().flat_map(|store| store["lvols"].as_array().cloned().unwrap_or_default());
    let blob = |value: Value| {
        let number = |name: &str| value[name].as_u64().unwrap();
        let hash = value["sha256"].as_str().unwrap().to_owned();
        (
            number("blob_id"),
            number("num_allocated_clusters"),
            value["thin_provisioned"].as_bool().unwrap(),
            hash,
        )
    };
    bare.into_iter().chain(volumes).map(blob).collect()
}

#[test]
fn every_volume_that_spdk_wrote_reads_as_spdk_read_it() {
    let ext = Image::fixture("ext");
    for name in ["hello", "lvs", "many"] {
        let seen = read(Image::fixture(name).path(), Some(ext.path()));
        assert_eq!((&seen["accepted"], seen["findings"].as_array().unwrap().len()), (&Value::Bool(true), 0));
        let expected = expected(&manifest(name));
        assert!(expected.len() >= 8, "{name}: the manifest lists volumes");
        for (id, allocated, thin, hash) in expected {
            let blobs = seen["blobs"].as_array().unwrap();
            let blob = blobs.iter().find(|blob| blob["id"] == id).unwrap();
            assert_eq!(blob["sha256"], hash, "{name}: blob {id:#x}");
            assert_eq!(
                (&blob["allocated_clusters"], &blob["thin"]),
                (&Value::from(allocated), &Value::from(thin))
            );
        }
    }
}

#[test]
fn a_dirty_store_and_every_step_are_accepted() {
    let dirty = read(Image::fixture("dirty").path(), None);
    assert_eq!((&dirty["free_clusters"], dirty["blobs"].as_array().unwrap().len()), (&Value::from(151), 6));
    let steps = [
        "1-init",
        "2-thick",
        "3-thin-created",
        "4-thin-written",
        "5-snapshot",
        "6-clone",
        "7-unloaded",
        "8-loaded",
    ];
    for (step, blobs) in steps.iter().zip([0, 1, 2, 2, 3, 4, 4, 4]) {
        let seen = read(Image::fixture(&format!("steps/{step}")).path(), None);
        assert_eq!(seen["blobs"].as_array().unwrap().len(), blobs, "{step}");
    }
}

#[test]
fn a_damaged_image_is_refused_with_a_reason() {
    let whole = unpack("hello");
    let refused = |bytes: &[u8]| {
        let seen = read(Image::new(bytes).path(), None);
        assert_eq!(seen["accepted"], false);
        seen["reason"].as_str().unwrap().to_owned()
    };
    assert!(refused(&whole[..100]).contains("shorter"));
    assert!(refused(&whole[..whole.len() / 2]).contains("larger than the device"));
    let mut flipped = whole.clone();
    flipped[28] ^= 1;
    assert!(refused(&flipped).contains("crc"));
    let mut lying = whole;
    lying[4096] = 9;
    assert!(refused(&lying).contains("mask"));
}

/// Writes a store with a thick blob, a thin one, a snapshot of that and a clone, and returns the bytes that
/// each blob must read.
async fn write_store(path: std::path::PathBuf, unload: bool) -> Vec<(u64, Vec<u8>)> {
    let disk = File::open(FileOptions::new(path).writable(true).create(16 << 20)).await.unwrap();
    let store = Blobstore::init(disk, InitOptions::default()).await.unwrap();
    let mut expected = Vec::new();
    let write = async |id, at: usize, byte: u8, content: &mut Vec<u8>| {
        let blob = store.open_blob(id).await.unwrap();
        blob.write(at as u64, IoBuf::copy_from(&[byte; 8192])).await.0.unwrap();
        content[at..at + 8192].fill(byte);
        blob.close().await.unwrap();
    };
    let thin = store.create_blob(BlobOptions::thin(4).xattr("name", "thin\0")).await.unwrap();
    let mut content = vec![0; 4 << 20];
    write(thin, 1 << 20, 1, &mut content).await;
    let snapshot = store.snapshot(thin, Vec::new()).await.unwrap();
    let clone = store.clone_blob(snapshot, Vec::new()).await.unwrap();
    expected.push((snapshot, content.clone()));
    let mut clones = content.clone();
    write(clone, 2 << 20, 2, &mut clones).await;
    expected.push((clone, clones));
    write(thin, (1 << 20) + 8192, 3, &mut content).await;
    expected.push((thin, content));
    let thick = store.create_blob(BlobOptions::thick(2)).await.unwrap();
    let mut content = vec![0; 2 << 20];
    write(thick, 0, 4, &mut content).await;
    expected.push((thick, content));
    let flushed = store.open_blob(thick).await.unwrap();
    flushed.flush().await.unwrap();
    flushed.close().await.unwrap();
    if unload {
        store.unload().await.unwrap();
    }
    expected.into_iter().map(|(id, content)| (id.raw(), content)).collect()
}

#[test]
fn what_our_store_writes_is_accepted_unloaded_or_not() {
    for unload in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ours.img");
        let runtime = Runtime::builder().reactors(1).engine(EngineKind::Auto).build().unwrap();
        let made = path.clone();
        let expected = runtime.run(async move || write_store(made, unload).await).unwrap();
        let seen = read(&path, None);
        assert_eq!((&seen["accepted"], &seen["clean"]), (&Value::Bool(true), &Value::Bool(unload)));
        assert_eq!(seen["findings"].as_array().unwrap().len(), 0, "{seen}");
        for (id, content) in expected {
            let blob = seen["blobs"].as_array().unwrap().iter().find(|blob| blob["id"] == id).unwrap();
            assert_eq!(blob["sha256"], support::sha256(&content), "blob {id:#x}");
        }
    }
}
