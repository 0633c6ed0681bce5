//! Stores that SPDK wrote and that are unusual: cut off inside its operations, with large metadata pages, with what
//! it leaves lying about. `tests/fixtures/cut.json` says what SPDK reads in them, or read before it was cut off.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

use crate::support;

use serde_json::{Value, json};
use spindle_format::check::check;
use spindle_format::{LoadOptions, Parent, Store};
use support::content::{content, hex};
use support::{Image, fixtures};

/// All blobs as the manifest lists them.
fn blobs(image: &Image, external: &Image, store: &Store) -> Value {
    let blobs = store.blobs.values().map(|blob| {
        let xattr = |xattr: &spindle_format::Xattr| {
            (String::from_utf8(xattr.name.clone()).unwrap(), json!(hex(&xattr.value)))
        };
        let xattrs: serde_json::Map<String, Value> = blob.metadata.xattrs.iter().map(xattr).collect();
        json!({
            "id": blob.id.raw(),
            "clusters": blob.metadata.map.num_clusters(),
            "thin": blob.metadata.flags.thin(),
            "read_only": blob.metadata.flags.read_only(),
            "parent": match &blob.parent {
                None => Value::Null,
                Some(Parent::Snapshot(id)) => json!(id.raw()),
                Some(Parent::External(id)) => json!({"external": String::from_utf8_lossy(id).trim_end_matches('\0')}),
            },
            "xattrs_hex": xattrs,
            "sha256": content(image, external, store, blob.id),
        })
    });
    blobs.collect()
}

#[test]
fn what_spdk_left_reads_as_spdk_read_it_and_only_pending_things_are_found() {
    let manifest = std::fs::read_to_string(fixtures().join("cut.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let external = Image::fixture("cut/outside");
    for entry in manifest["images"].as_array().unwrap() {
        let name = entry["image"].as_str().unwrap();
        let mut image = Image::fixture(&format!("cut/{name}"));
        assert_eq!(entry["bytes"], image.len, "{name}");
        let store = image.load().unwrap();
        assert_eq!(u64::from(store.geometry.io_unit_size()), entry["block_size"], "{name}");
        assert_eq!(blobs(&image, &external, &store), entry["blobs"], "{name}");
        let found: Vec<&str> = check(&store).iter().map(|finding| finding.code()).collect();
        let found: Vec<&str> = found.into_iter().filter(|&code| code != "marked-clean").collect();
        assert_eq!(json!(found), entry["findings"], "{name}");
        // Put right, cut off after every write of that: the same, and in the end nothing is left to do.
        let changes: Vec<_> = store.repairs.iter().flat_map(|repair| &repair.changes).collect();
        for (cut, change) in changes.iter().enumerate() {
            image.apply(change);
            let again = image.load().unwrap();
            assert_eq!(blobs(&image, &external, &again), entry["blobs"], "{name}, write {cut} of its repair");
        }
        let recovered = LoadOptions { force_recover: true, ..LoadOptions::default() };
        assert_eq!(check(&image.load_with(recovered).unwrap()), [], "{name}, repaired");
    }
}
