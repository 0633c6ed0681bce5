//! A store taken through the steps of `tests/fixtures/steps` with nothing but this crate's serialisers is
//! SPDK's own, byte for byte.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail like the test")]

use crate::support;

use spindle_format::metadata::internal;
use spindle_format::{BlobMetadata, Flags, SuperBlock};
use support::Image;
use support::builder::{BLOCK, Builder};

fn equals(store: &Builder, step: &str) {
    let theirs = Image::fixture(&format!("steps/{step}"));
    assert_eq!(store.image.first_difference(&theirs), None, "first byte that differs in {step}");
}

#[test]
fn every_step_is_what_spdk_wrote() {
    let mut store = Builder::new();
    equals(&store, "1-init");

    let a = store.new_blob();
    let mut blob_a = BlobMetadata::new_thick();
    blob_a.map.resize(3);
    (0..3).for_each(|index| store.allocate(&mut blob_a, index));
    blob_a.xattrs.set(b"name", b"blob-a\0").unwrap();
    store.write_extents(a, &mut blob_a);
    store.write_root(a, &blob_a);
    equals(&store, "2-thick");

    let b = store.new_blob();
    let mut blob_b = BlobMetadata::new_thin();
    blob_b.map.resize(20);
    store.write_root(b, &blob_b);
    equals(&store, "3-thin-created");

    store.allocate(&mut blob_b, 2);
    store.write_extents(b, &mut blob_b);
    store.write_root(b, &blob_b);
    let cluster = blob_b.map.get(2).unwrap();
    store.image.write(store.plan.geometry.cluster_offset(cluster), &[0x5A; BLOCK as usize]);
    equals(&store, "4-thin-written");

    let s = store.new_blob();
    let mut snapshot = blob_b.clone();
    snapshot.flags.data_read_only |= Flags::READ_ONLY;
    store.write_root(s, &snapshot);
    blob_b.map.clear();
    blob_b.set_internal(internal::SNAPSHOT, &s.raw().to_le_bytes()).unwrap();
    store.write_root(b, &blob_b);
    equals(&store, "5-snapshot");

    let c = store.new_blob();
    store.write_root(c, &blob_b);
    equals(&store, "6-clone");

    let super_block = SuperBlock { super_blob: Some(a), ..store.plan.super_block.clone() };
    store.unload(&super_block);
    equals(&store, "7-unloaded");
    equals(&store, "8-loaded");
}

#[test]
fn every_step_loads_and_nothing_is_wrong_with_it() {
    let steps =
        ["1-init", "2-thick", "3-thin-created", "4-thin-written", "5-snapshot", "6-clone", "7-unloaded"];
    for (step, blobs) in steps.into_iter().zip([0, 1, 2, 2, 3, 4, 4]) {
        let store = Image::fixture(&format!("steps/{step}")).load().unwrap();
        assert_eq!(store.blobs.len(), blobs, "{step}");
        assert_eq!(store.recovered, step != "7-unloaded", "{step}");
        assert_eq!(spindle_format::check::check(&store), [], "{step}");
    }
}
