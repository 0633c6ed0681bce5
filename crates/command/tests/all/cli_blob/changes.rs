//! Creating, removing, resizing, snapshots, clones, xattrs: what they leave, and what they refuse.

use super::support::{Image, blob, on, unpack};
use super::writing::*;
use serde_json::json;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

const CLUSTER: u64 = 64 << 10;

#[test]
fn a_size_is_rounded_up_to_clusters_and_that_is_said() {
    let image = store(8);
    let made = on(&image, "create", &["--size", "100K", "--name", "a"]);
    assert_eq!((made.code, made.text()), (0, "0x100000000\n"), "{}", made.err);
    assert!(made.err.contains("100 KiB is rounded up to 2 clusters of 64 KiB: 128 KiB"), "{}", made.err);
    let exact = on(&image, "create", &["--size", "128K", "--thin"]);
    assert_eq!((exact.code, exact.err.as_str()), (0, ""));
    let made =
        on(&image, "create", &["--clusters", "3", "--xattr", "k=a=b", "--xattr", "e=", "--json"]).json();
    assert_eq!((&made["clusters"], &made["thin"]), (&json!(3), &json!(false)));
    assert_eq!(made["xattrs"], json!({"k": "613d62", "e": ""}));
    assert_eq!(blobs(&image).last(), Some(&made));
    in_order(&image);
}

#[test]
fn misuse_is_told_and_changes_nothing() {
    let image = store(8);
    done(&image, "create", &["--clusters", "2", "--name", "disk"]);
    let before = image.sha256();
    for (verb, rest, saying) in [
        ("create", &["--clusters", "1000"][..], &["out of space", "1000"][..]),
        ("create", &["--clusters", "1", "--name", "disk"], &["disk", "0x100000000", "another"]),
        ("rm", &["dsik"], &["no blob", "did you mean 0x100000000 (disk)"]),
        ("rm", &["0x100000077"], &["0x100000077"]),
        ("resize", &["disk", "64K"], &["--shrink"]),
        ("resize", &["disk", "1G"], &["out of space"]),
        ("clone", &["disk"], &["snapshot"]),
        ("decouple", &["disk"], &["0x100000000"]),
        ("set-parent", &["disk", "disk"], &["thin"]),
        ("xattr", &["disk", "get", "color"], &["color"]),
        ("xattr", &["disk", "rm", "color"], &["color"]),
        ("super", &["nobody"], &["nobody"]),
        ("grow", &["--size", "1M"], &["store.img", "no store shrinks"]),
    ] {
        on(&image, verb, rest).fails(1, saying);
    }
    for (verb, rest) in [
        ("create", &[][..]),
        ("create", &["--size", "1M", "--clusters", "2"]),
        ("create", &["--size", "10 MB"]),
        ("create", &["--size", "1M", "--xattr", "novalue"]),
        ("create", &["--size", "1M", "--name", "a", "--xattr", "name=b"]),
        ("resize", &["disk"]),
        ("rm", &[]),
    ] {
        assert_eq!(on(&image, verb, rest).code, 2, "{verb} {rest:?}");
    }
    assert_eq!(image.sha256(), before);
}

#[test]
fn a_store_that_cannot_be_used_is_named_by_every_command() {
    let garbage = Image::new(&pattern(1, 1 << 20));
    for (verb, rest) in [
        ("create", &["--clusters", "1"][..]),
        ("rm", &["a"]),
        ("resize", &["a", "1M"]),
        ("xattr", &["a", "set", "k", "v"]),
        ("import", &["--create", "/dev/null"]),
        ("snapshot", &["a"]),
        ("clone", &["a"]),
        ("inflate", &["a"]),
        ("super", &["a"]),
        ("grow", &[]),
    ] {
        on(&garbage, verb, rest).fails(1, &["store.img", "super block at byte 0", "signature"]);
        let rest = ["/nonexistent.img"].iter().chain(rest);
        blob([verb].iter().chain(rest)).fails(1, &["/nonexistent.img", "cannot be opened"]);
    }
    blob(["create", "/dev/null", "--clusters", "1"]).fails(1, &["/dev/null", "block device"]);
}

#[test]
fn a_file_that_may_not_be_written_is_named() {
    let image = store(8);
    fs::set_permissions(image.path(), Permissions::from_mode(0o444)).unwrap();
    if fs::File::options().write(true).open(image.path()).is_err() {
        on(&image, "create", &["--clusters", "1"]).fails(1, &["store.img", "ermission denied"]);
    }
    // No user may write to a running program, not even root.
    let program = image.beside("program");
    fs::copy("/bin/sleep", &program).unwrap();
    // Until a child that a test beside this one is just starting has let go of the copied file.
    let mut running = loop {
        match std::process::Command::new(&program).arg("60").spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => continue,
            child => break child.unwrap(),
        }
    };
    let path = program.to_str().unwrap();
    blob(["init", path]).fails(1, &["program", "busy"]);
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn snapshots_keep_clones_follow_and_removing_merges() {
    let image = store(16);
    let first = pattern(1, 10 * CLUSTER as usize);
    assert_eq!(import_file(&image, &["--create", "--thin", "--name", "disk", "FILE"], &first).code, 0);
    let snapshot = id(&image, "snapshot", &["disk", "--name", "monday"]);
    let second = pattern(2, 4 * CLUSTER as usize);
    assert_eq!(import_file(&image, &["disk", "FILE"], &second).code, 0);
    assert!(contents(&image, "monday") == first);
    id(&image, "clone", &["monday", "--name", "copy"]);
    assert!(contents(&image, "copy") == first);

    on(&image, "rm", &["monday"]).fails(1, &[&snapshot, "more than one clone"]);
    on(&image, "resize", &["monday", "2M"]).fails(1, &[&snapshot, "read-only"]);
    assert_eq!(named(&image, "monday")["clones"].as_array().unwrap().len(), 2);
    done(&image, "inflate", &["copy"]);
    assert_eq!(named(&image, "copy")["parent"], json!(null));
    let removed = done(&image, "rm", &["monday"]);
    assert!(removed.contains("(monday)") && removed.contains("freed"), "{removed}");
    assert!(contents(&image, "copy") == first);
    let out = contents(&image, "disk");
    assert!(out[..second.len()] == second && out[second.len()..].iter().all(|&byte| byte == 0));
    in_order(&image);
    let removed = on(&image, "rm", &["copy", "--json"]).json();
    let id = named_id(&removed);
    let id_text = format!("{id:#x}");
    assert_eq!(removed, json!({"id": id, "id_text": id_text, "name": "copy", "freed": 10 * CLUSTER}));
}

fn named_id(removed: &serde_json::Value) -> u64 {
    removed["id"].as_u64().unwrap()
}

#[test]
fn a_blob_stands_on_its_grandparent_when_decoupled_and_on_another_when_told() {
    let image = store(16);
    let bytes = pattern(1, 6 * CLUSTER as usize);
    assert_eq!(import_file(&image, &["--create", "--thin", "--name", "disk", "FILE"], &bytes).code, 0);
    id(&image, "snapshot", &["disk", "--name", "one"]);
    id(&image, "snapshot", &["disk", "--name", "two"]);
    assert_eq!(named(&image, "disk")["parent"], named(&image, "two")["id"]);
    done(&image, "decouple", &["disk"]);
    assert_eq!(named(&image, "disk")["parent"], named(&image, "one")["id"]);
    let said = done(&image, "set-parent", &["disk", "two"]);
    assert!(said.contains("the parent 0x1"), "{said}");
    assert_eq!(named(&image, "disk")["parent"], named(&image, "two")["id"]);
    assert!(contents(&image, "disk") == bytes);
    in_order(&image);
}

#[test]
fn a_clone_of_an_external_snapshot_reads_it_and_can_be_inflated() {
    let (image, outside) = (store(16), Image::new(&pattern(3, 5 * CLUSTER as usize)));
    let uuid = "3f1f3c1e-8f0a-4d5e-9b8e-00000000e5a0";
    let create = ["--clusters", "5", "--external-snapshot", uuid, "--name", "esnap"];
    id(&image, "create", &create);
    assert_eq!(named(&image, "esnap")["parent"], json!({ "external": uuid }));
    on(&image, "inflate", &["esnap"]).fails(1, &[uuid]);
    let argument = format!("{uuid}={}", outside.path().display());
    done(&image, "inflate", &["esnap", "--esnap", &argument]);
    assert!(contents(&image, "esnap") == fs::read(outside.path()).unwrap());
    in_order(&image);
}

#[test]
fn resizing_zeroes_what_is_new_and_frees_what_is_cut_off() {
    for more in [&[][..], &["--thin"]] {
        let image = store(16);
        let bytes = pattern(1, 4 * CLUSTER as usize);
        let rest = [&["--create", "--name", "disk", "FILE"], more].concat();
        assert_eq!(import_file(&image, &rest, &bytes).code, 0);
        let free = || on(&image, "info", &["--json"]).json()["free_clusters"].as_u64().unwrap();
        let before = free();
        assert!(done(&image, "resize", &["disk", "128K", "--shrink"]).contains("has 128 KiB now"));
        assert_eq!(free(), before + 2);
        let resized = on(&image, "resize", &["disk", "300K", "--json"]);
        assert!(resized.err.contains("5 clusters"), "{}", resized.err);
        assert_eq!(resized.json()["size"], 5 * CLUSTER);
        let out = contents(&image, "disk");
        assert!(out[..2 * CLUSTER as usize] == bytes[..2 * CLUSTER as usize]);
        assert!(out[2 * CLUSTER as usize..].iter().all(|&byte| byte == 0), "cut off data does not come back");
        in_order(&image);
    }
}

#[test]
fn xattrs_are_set_listed_printed_and_removed() {
    let image = store(8);
    done(&image, "create", &["--clusters", "1", "--name", "disk"]);
    assert_eq!(
        done(&image, "xattr", &["disk", "set", "color", "\u{fc}ber\x1b"]),
        "name=disk\ncolor=\u{fc}ber\\u{1b}\n"
    );
    assert_eq!(on(&image, "xattr", &["disk", "get", "color"]).out, "\u{fc}ber\x1b".as_bytes());
    done(&image, "xattr", &["disk", "set", "name", "other"]);
    assert_eq!(done(&image, "xattr", &["other"]), "name=other\ncolor=\u{fc}ber\\u{1b}\n");
    let left = on(&image, "xattr", &["other", "--json", "rm", "color"]).json();
    assert_eq!(left, json!({"name": "6f74686572"}));
    on(&image, "xattr", &["other", "set", "large", &"x".repeat(5000)]).fails(2, &["shorten"]);
    in_order(&image);
}

#[test]
fn the_super_blob_is_shown_set_and_cleared() {
    let image = store(8);
    let id = id(&image, "create", &["--clusters", "0", "--name", "root"]);
    assert_eq!(done(&image, "super", &[]), "none\n");
    assert_eq!(done(&image, "super", &["root"]), format!("{id}\n"));
    assert_eq!(on(&image, "super", &["--json"]).json(), json!(0x1_0000_0000_u64));
    assert_eq!(done(&image, "super", &["none"]), "none\n");
    assert_eq!(on(&image, "super", &["--json"]).json(), json!(null));
    in_order(&image);
}

#[test]
fn a_store_takes_over_what_its_file_has_grown_by() {
    let image = store(8);
    let bytes = pattern(1, 7 << 20);
    assert_eq!(import_file(&image, &["--create", "--name", "disk", "FILE"], &bytes).code, 0);
    on(&image, "create", &["--size", "8M"]).fails(1, &["out of space"]);
    let grown = on(&image, "grow", &["--size", "24M", "--json"]).json();
    assert_eq!(grown["size"], 24 << 20);
    done(&image, "create", &["--size", "8M"]);
    assert!(contents(&image, "disk") == bytes);
    in_order(&image);
}

#[test]
fn a_file_stays_as_large_as_it_is_where_no_store_takes_it_over() {
    let image = store(8);
    let old = fs::metadata(image.path()).unwrap().len();
    on(&image, "grow", &["--size", "4T"]).fails(1, &["store.img", "can grow to", "4398046511104"]);
    assert_eq!(fs::metadata(image.path()).unwrap().len(), old);
    in_order(&image);
    let other = Image::new(&[7; 1 << 20]);
    on(&other, "grow", &["--size", "64M"]).fails(1, &["store.img", "not a Blobstore"]);
    assert_eq!(fs::metadata(other.path()).unwrap().len(), 1 << 20);
}

#[test]
fn every_store_that_spdk_wrote_takes_changes_and_stays_in_order() {
    for name in ["hello", "many", "dirty", "steps/5-snapshot"] {
        let image = Image::new(&unpack(name));
        let made = id(&image, "create", &["--size", "3M", "--thin", "--name", "ours"]);
        let bytes = pattern(1, 2 << 20);
        assert_eq!(import_file(&image, &["ours", "FILE"], &bytes).code, 0, "{name}");
        id(&image, "snapshot", &[&made, "--name", "kept"]);
        done(&image, "resize", &["ours", "5M"]);
        done(&image, "rm", &["kept"]);
        let out = contents(&image, "ours");
        assert!(out[..bytes.len()] == bytes && out[bytes.len()..].iter().all(|&byte| byte == 0), "{name}");
        in_order(&image);
    }
}
