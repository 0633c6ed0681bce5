//! Stores that SPDK wrote, read through the Blobstore: every volume's bytes are those that SPDK read.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use crate::support;

use std::sync::Arc;

use serde_json::Value;
use spindle_blob::{BlobId, Blobstore, ExternalSource, LoadOptions, StoreOptions};
use spindle_block::SimDisk;
use spindle_engine::sim::{Disk, DiskOptions, Image};
use support::{fixture, fixtures, read, run_on, sha256};

/// The external snapshot of the `lvs` fixture, whatever id is asked for.
fn external() -> ExternalSource {
    let disk = support::disk_of(fixture("ext"));
    let device = SimDisk::immediate("ext", disk).unwrap();
    Arc::new(move |_id| Some(device.clone()))
}

/// Every object of a manifest that has a blob id and a hash of its content.
fn volumes(manifest: &Value) -> Vec<(u64, String, u64)> {
    let mut found = Vec::new();
    let mut queue = vec![manifest];
    while let Some(value) = queue.pop() {
        match value {
            Value::Object(fields) => {
                let id = fields.get("blob_id").or(fields.get("id")).and_then(Value::as_u64);
                if let (Some(id), Some(sha)) = (id, fields.get("sha256").and_then(Value::as_str)) {
                    let size = fields.get("size_bytes_hashed").or(fields.get("size_bytes"));
                    let size = size.or(fields.get("size")).and_then(Value::as_u64).unwrap_or(0);
                    found.push((id, sha.to_owned(), size));
                }
                queue.extend(fields.values());
            }
            Value::Array(values) => queue.extend(values),
            _ => {}
        }
    }
    found
}

fn all_match(name: &'static str, block: u32, read_only: bool, at_least: usize) {
    run_on("sim:1", async move || {
        let manifest = std::fs::read_to_string(fixtures().join(format!("{name}.json"))).unwrap();
        let volumes = volumes(&serde_json::from_str(&manifest).unwrap());
        assert!(volumes.len() >= at_least, "{name} names {} volumes", volumes.len());
        let image: Image = fixture(name);
        let options = DiskOptions { block, atomic_unit: 4096, ..DiskOptions::new(image.size()) };
        let disk = Disk::from_image(image.clone(), options);
        let device = SimDisk::immediate(name, disk.clone()).unwrap();
        let store = StoreOptions { external: Some(external()), ..StoreOptions::default() };
        let options = LoadOptions { read_only, store, ..LoadOptions::default() };
        let store = Blobstore::load(device, options).await.unwrap();
        for (id, sha, size) in volumes {
            let blob = store.open_blob(BlobId::from_raw(id)).await.unwrap();
            assert!(size == 0 || size == blob.size(), "{name}: size of {id:#x}");
            let bytes = read(&blob, 0, blob.size()).await;
            assert_eq!(sha256(&bytes), sha, "{name}: content of {id:#x}");
            blob.close().await.unwrap();
        }
        store.unload().await.unwrap();
        if read_only {
            assert_eq!(disk.snapshot().visible().first_difference(&image), None, "nothing was written");
        }
    });
}

#[test]
fn a_bare_store_reads_as_spdk_read_it() {
    all_match("hello", 512, false, 5);
}

#[test]
fn a_store_of_volumes_reads_as_spdk_read_it_external_snapshot_included() {
    all_match("lvs", 4096, false, 16);
}

#[test]
fn a_store_that_was_killed_reads_as_after_spdks_recovery() {
    all_match("dirty", 4096, false, 4);
}

#[test]
fn a_store_of_a_thousand_volumes_reads_as_spdk_read_it() {
    all_match("many", 512, false, 10);
}

#[test]
fn a_read_only_load_changes_nothing_dirty_or_not() {
    all_match("dirty", 4096, true, 4);
    all_match("hello", 512, true, 5);
}
