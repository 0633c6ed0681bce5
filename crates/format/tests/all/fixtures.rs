//! Stores that real SPDK wrote open, and say what SPDK itself read back.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

use crate::support;

use serde_json::Value;
use spindle_format::{BlobId, LoadOptions, Parent, Store, check};
use std::collections::BTreeMap;
use support::content::{content, hex};
use support::{Image, fixtures};

fn manifest(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join(format!("{name}.json"))).unwrap()).unwrap()
}

fn compare(image: &Image, external: &Image, store: &Store, manifest: &Value, blob: &Value, hashed: bool) {
    let id = BlobId::from_raw(blob["blob_id"].as_u64().unwrap());
    let found = store.blob(id).unwrap_or_else(|| panic!("blob {id} is there"));
    let map = &found.metadata.map;
    let cluster_size = manifest["cluster_size"].as_u64().unwrap();
    assert_eq!(blob["num_clusters"], map.num_clusters(), "{id}");
    assert_eq!(blob["size_bytes"], map.num_clusters() * cluster_size, "{id}");
    assert_eq!(blob["num_allocated_clusters"], map.allocated(), "{id}");
    let runs: Vec<Vec<u64>> =
        map.allocated_ranges().into_iter().map(|(start, length)| vec![start, length]).collect();
    assert_eq!(blob["allocated_runs"], serde_json::json!(runs), "{id}");
    assert_eq!(blob["thin_provisioned"], found.metadata.flags.thin(), "{id}");
    assert_eq!(blob["read_only"], found.metadata.flags.read_only(), "{id}");
    assert_eq!(blob["snapshot"], found.is_snapshot(), "{id}");
    let (parent, external_parent) = match &found.parent {
        Some(Parent::Snapshot(parent)) => (Some(parent.raw()), false),
        Some(Parent::External(_)) => (None, true),
        None => (None, false),
    };
    assert_eq!(blob.get("parent_blob_id").and_then(Value::as_u64), parent, "{id}");
    assert_eq!(blob.get("esnap_clone").and_then(Value::as_bool).unwrap_or(false), external_parent, "{id}");
    let xattrs: BTreeMap<String, String> = found
        .metadata
        .xattrs
        .iter()
        .map(|xattr| (String::from_utf8(xattr.name.clone()).unwrap(), hex(&xattr.value)))
        .collect();
    assert_eq!(blob["xattrs_hex"], serde_json::json!(xattrs), "{id}");
    if hashed {
        assert_eq!(blob["sha256"], content(image, external, store, id), "{id}");
    }
}

fn compare_store(store: &Store, manifest: &Value) {
    let geometry = &store.geometry;
    let super_blob = store.super_block.super_blob.unwrap().raw();
    assert_eq!(manifest["super_blob_id"], super_blob);
    assert_eq!(manifest["cluster_size"], geometry.cluster_size());
    assert_eq!(manifest["md_page_size"], geometry.md_page_size());
    assert_eq!(manifest["io_unit_size"], geometry.io_unit_size());
    assert_eq!(manifest["total_data_clusters"], geometry.data_clusters());
    assert_eq!(manifest["free_clusters"], store.free_clusters());
}

fn nothing_is_wrong(image: &Image, store: &Store) {
    assert_eq!(store.damaged, []);
    assert_eq!(store.repairs, []);
    assert_eq!(store.allocation_blocked, None);
    assert_eq!(check::check(store), []);
    let found = image.load_with(LoadOptions { force_recover: true, ..LoadOptions::default() }).unwrap();
    assert_eq!(found.used_pages, store.used_pages);
    assert_eq!(found.used_clusters, store.used_clusters);
    assert_eq!(found.used_blob_ids, store.used_blob_ids);
    assert_eq!(found.blobs, store.blobs);
}

#[test]
fn hello_says_what_spdk_read_back() {
    let (image, manifest) = (Image::fixture("hello"), manifest("hello"));
    let store = image.load().unwrap();
    assert!(store.was_clean() && !store.recovered);
    assert_eq!(store.super_block.bs_type.to_string(), manifest["bstype"].as_str().unwrap());
    compare_store(&store, &manifest);
    let blobs = manifest["blobs"].as_array().unwrap();
    assert_eq!(store.blobs.len(), blobs.len());
    for blob in blobs {
        compare(&image, &Image::default(), &store, &manifest, blob, true);
    }
    nothing_is_wrong(&image, &store);
}

#[test]
fn lvs_says_what_spdk_read_back() {
    let (image, external) = (Image::fixture("lvs"), Image::fixture("ext"));
    let manifest = &manifest("lvs")["lvstores"][0];
    let store = image.load().unwrap();
    compare_store(&store, manifest);
    let lvols = manifest["lvols"].as_array().unwrap();
    assert_eq!(store.blobs.len(), lvols.len() + 1, "the volumes and the super blob");
    for lvol in lvols {
        compare(&image, &external, &store, manifest, lvol, true);
    }
    nothing_is_wrong(&image, &store);
}

#[test]
fn many_says_what_spdk_read_back() {
    let image = Image::fixture("many");
    let manifest = &manifest("many")["lvstores"][0];
    let store = image.load().unwrap();
    compare_store(&store, manifest);
    let lvols = manifest["lvols"].as_array().unwrap();
    assert_eq!(store.blobs.len(), lvols.len() + 1);
    for (at, lvol) in lvols.iter().enumerate() {
        // Hashing a gigabyte of mostly zeroes takes its time: the metadata of all, the contents of some.
        let hashed = at % 20 == 0 || lvol["num_clusters"] != 16 || lvol["snapshot"] == true;
        compare(&image, &Image::default(), &store, manifest, lvol, hashed);
    }
    nothing_is_wrong(&image, &store);
}

#[test]
fn dirty_is_recovered_to_what_spdk_recovered() {
    let image = Image::fixture("dirty");
    let manifest = manifest("dirty");
    let recovered = &manifest["after_real_spdk_recovery"]["lvstores"][0];
    let store = image.load().unwrap();
    assert!(!store.was_clean() && store.recovered);
    compare_store(&store, recovered);
    for lvol in recovered["lvols"].as_array().unwrap() {
        compare(&image, &Image::default(), &store, recovered, lvol, true);
    }
    assert_eq!(store.damaged, []);
    assert_eq!(store.allocation_blocked, None);
}
