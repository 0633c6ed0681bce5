//! Every store that SPDK wrote opens, and every volume reads as SPDK read it.

use super::support::{Image, blob, manifest, on, sha256};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The store of a manifest, which for the dirty one is what SPDK's own recovery made of it.
fn store_of(name: &str) -> Value {
    let mut manifest = manifest(name);
    match name {
        "hello" => manifest,
        "dirty" => manifest["after_real_spdk_recovery"]["lvstores"][0].take(),
        _ => manifest["lvstores"][0].take(),
    }
}

fn volumes_of(store: &Value) -> &Vec<Value> {
    store.get("blobs").or(store.get("lvols")).and_then(Value::as_array).expect("a manifest lists volumes")
}

fn by_id(listed: Value) -> BTreeMap<u64, Value> {
    let Value::Array(blobs) = listed else { panic!("ls --json is an array") };
    blobs.into_iter().map(|blob| (blob["id"].as_u64().unwrap(), blob)).collect()
}

/// Compares one listed blob with what the manifest says of it.
fn same_as_spdk_says(blob: &Value, volume: &Value) {
    let id = &volume["blob_id"];
    for (ours, theirs) in [
        ("id", "blob_id"),
        ("size", "size_bytes"),
        ("clusters", "num_clusters"),
        ("allocated_clusters", "num_allocated_clusters"),
        ("thin", "thin_provisioned"),
        ("read_only", "read_only"),
        ("xattrs", "xattrs_hex"),
    ] {
        assert_eq!(blob[ours], volume[theirs], "{ours} of blob {id}");
    }
    if let Some(name) = volume.get("name") {
        assert_eq!(&blob["name"], name, "name of blob {id}");
    }
    // SPDK calls a blob a snapshot as soon as it has a clone.
    let is_snapshot = !blob["clones"].as_array().unwrap().is_empty();
    assert_eq!(is_snapshot, volume["snapshot"].as_bool().unwrap(), "clones of blob {id}");
    // "clone" without a parent's id is what SPDK still says of one it decoupled before this load.
    let parent = match (volume.get("parent_blob_id"), volume.get("esnap_id")) {
        (Some(parent), _) => parent.clone(),
        (None, Some(id)) => json!({ "external": id }),
        (None, None) => blob["parent"].clone(),
    };
    assert_eq!(blob["parent"], parent, "parent of blob {id}");
}

/// Lists and exports a whole image and compares everything with its manifest.
fn read_back(name: &str, esnap: &[&str], hashed: impl Fn(&Value) -> bool) {
    let image = Image::fixture(name);
    let (manifest, store) = (manifest(name), store_of(name));
    let before = image.sha256();
    assert_eq!(before, manifest["image_sha256"].as_str().unwrap(), "the fixture is what SPDK wrote");
    let blobs = by_id(on(&image, "ls", &["--json"]).json());
    let volumes = volumes_of(&store);
    // An lvolstore has one more blob, its super blob, that is no volume.
    assert_eq!(blobs.len(), volumes.len() + usize::from(store.get("lvols").is_some()));
    for volume in volumes {
        let id = volume["blob_id"].as_u64().unwrap();
        let listed = blobs.get(&id).unwrap_or_else(|| panic!("{name}: blob {id:#x} is not listed"));
        same_as_spdk_says(listed, volume);
        if hashed(volume) {
            let id = id.to_string();
            let exported = on(&image, "export", &[&[id.as_str(), "-"], esnap].concat());
            assert_eq!(exported.code, 0, "{name}: blob {id}: {}", exported.err);
            assert_eq!(sha256(&exported.out), volume["sha256"].as_str().unwrap(), "{name}: blob {id}");
        }
    }
    for (id, blob) in &blobs {
        for clone in blob["clones"].as_array().unwrap() {
            assert_eq!(blobs[&clone.as_u64().unwrap()]["parent"], json!(id), "clones and parents agree");
        }
    }
    let info = on(&image, "info", &["--json"]).json();
    assert_eq!(info["clean"], json!(name != "dirty"));
    assert_eq!(info["damaged"], json!([]));
    assert_eq!(info["repairs"], json!([]));
    for field in ["cluster_size", "md_page_size", "io_unit_size", "total_data_clusters", "super_blob_id"] {
        assert_eq!(info[field], store[field], "{field}");
    }
    assert_eq!(info["free_clusters"], store["free_clusters"], "free clusters");
    let dump = on(&image, "dump", &["--json"]).json();
    for page in dump["pages"].as_array().unwrap() {
        assert_eq!(page["id_text"], format!("{:#x}", page["id"].as_u64().unwrap()));
    }
    let roots = dump["pages"].as_array().unwrap().iter().filter(|page| page["role"] == "root");
    let roots: Vec<u64> = roots.filter(|p| p["in_use"] == true).map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(roots, blobs.keys().copied().collect::<Vec<_>>(), "the dump shows the root of every blob");
    assert_eq!(image.sha256(), before, "the image is not written to");
}

#[test]
fn a_bare_store_reads_back_as_spdk_read_it() {
    read_back("hello", &[], |_| true);
}

#[test]
fn an_lvolstore_with_every_kind_of_volume_reads_back_as_spdk_read_it() {
    let ext = Image::fixture("ext");
    let uuid = manifest("lvs")["external_snapshot"]["uuid"].as_str().unwrap().to_owned();
    let esnap = format!("{uuid}={}", ext.path().display());
    read_back("lvs", &["--esnap", &esnap], |_| true);
}

#[test]
fn a_store_killed_while_it_was_written_reads_back_as_spdk_recovered_it() {
    read_back("dirty", &[], |_| true);
}

#[test]
fn a_thousand_volumes_read_back_as_spdk_read_them() {
    // Volumes that were never written are all alike: every fiftieth of them is enough.
    let hashed = |volume: &Value| {
        let written = volume["num_allocated_clusters"] != 0 || volume.get("parent_blob_id").is_some();
        written || volume["blob_id"].as_u64().unwrap().is_multiple_of(50)
    };
    read_back("many", &[], hashed);
}

#[test]
fn every_step_of_a_stores_life_opens() {
    let steps = [
        ("1-init", 0),
        ("2-thick", 1),
        ("3-thin-created", 2),
        ("4-thin-written", 2),
        ("5-snapshot", 3),
        ("6-clone", 4),
        ("7-unloaded", 4),
        ("8-loaded", 4),
    ];
    for (step, blobs) in steps {
        let image = Image::fixture(&format!("steps/{step}"));
        let before = image.sha256();
        let listed = by_id(on(&image, "ls", &["--json"]).json());
        assert_eq!(listed.len(), blobs, "{step}");
        let info = on(&image, "info", &["--json"]).json();
        assert_eq!(info["clean"], json!(step >= "7"), "{step}");
        assert_eq!(info["bstype"], "LVOLSTORE", "{step}");
        assert_eq!(on(&image, "dump", &[]).code, 0, "{step}");
        assert_eq!(image.sha256(), before, "{step}: the image is not written to");
    }
}

#[test]
fn a_thin_blob_is_seen_through_snapshot_and_clone_while_they_are_made() {
    let mut expected = vec![0; 20 << 20];
    expected[512 * 4096..513 * 4096].fill(0x5A);
    for step in ["4-thin-written", "5-snapshot", "6-clone", "8-loaded"] {
        let image = Image::fixture(&format!("steps/{step}"));
        let thin = by_id(on(&image, "ls", &["--json"]).json()).into_values().filter(|b| b["thin"] == true);
        for blob in thin {
            let id = blob["id"].to_string();
            let exported = on(&image, "export", &[&id, "-"]);
            let out = &exported.out;
            assert_eq!(out.len(), expected.len(), "{step}: {}", exported.err);
            // The cluster that was allocated for the one block still shows the device's old bytes around it:
            // SPDK does not zero it.
            let cluster = 2 << 20..3 << 20;
            assert_eq!(out[512 * 4096..513 * 4096], expected[512 * 4096..513 * 4096], "{step}: blob {id}");
            assert_eq!(out[..cluster.start], expected[..cluster.start], "{step}: blob {id}");
            assert_eq!(out[cluster.end..], expected[cluster.end..], "{step}: blob {id}");
        }
    }
}

#[test]
fn without_its_external_snapshot_only_the_clone_on_it_cannot_be_exported() {
    let image = Image::fixture("lvs");
    let uuid = manifest("lvs")["external_snapshot"]["uuid"].as_str().unwrap().to_owned();
    on(&image, "export", &["esnap_clone", "-"]).fails(1, &[&uuid, "--esnap"]);
    assert_eq!(on(&image, "export", &["chain", "-"]).code, 0);
    let info = on(&image, "info", &["--json"]).json();
    assert_eq!(info["external_snapshots"][0]["id"], uuid.as_str());
    assert_eq!(info["external_snapshots"][0]["given"], false);
    assert_eq!(info["lvolstore"]["name"], "lvs0");
}

#[test]
fn an_external_snapshot_shorter_than_its_clone_reads_as_zeroes_past_its_end() {
    let image = Image::fixture("lvs");
    let ext = super::support::unpack("ext");
    let uuid = manifest("lvs")["external_snapshot"]["uuid"].as_str().unwrap().to_uppercase();
    let export = |source: &[u8]| {
        let file = Image::new(source);
        let esnap = format!("{uuid}={}", file.path().display());
        let ended = on(&image, "export", &["esnap_clone", "-", "--esnap", &esnap]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended.out
    };
    let cut = (5 << 20) + 700;
    let (whole, short) = (export(&ext), export(&ext[..cut]));
    assert_eq!(short[..cut], whole[..cut]);
    assert!(short[cut..].iter().all(|&byte| byte == 0));
    assert_eq!(short.len(), whole.len());
}

#[test]
fn people_get_aligned_columns_and_the_words_for_what_a_blob_is() {
    let image = Image::fixture("lvs");
    let listed = on(&image, "ls", &[]);
    let text = listed.text();
    let column = |line: &str, word: &str| line.find(word);
    let header = text.lines().next().unwrap();
    let snap1 = text.lines().find(|line| line.contains("snap1 ")).unwrap();
    assert_eq!(column(header, "NAME"), column(snap1, "snap1"), "{text}");
    assert!(snap1.contains("8 MiB") && snap1.contains("thin,read-only,snapshot"), "{snap1}");
    let clone = text.lines().find(|line| line.contains("esnap_clone")).unwrap();
    assert!(clone.contains("external 3f1f3c1e-8f0a-4d5e-9b8e-00000000e5a0"), "{clone}");
    let info = on(&image, "info", &[]);
    for words in ["lvs0, uuid c4ee611e", "clean", "185 MiB in 185 clusters", "256 MiB"] {
        assert!(info.text().contains(words), "{words}: {}", info.text());
    }
    let dirty = Image::fixture("dirty");
    assert!(on(&dirty, "info", &[]).text().contains("dirty"));
    assert_eq!(blob(["ls".as_ref(), dirty.path().as_os_str()]).err, "", "a dirty store is no reason to warn");
}
