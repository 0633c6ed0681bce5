//! An lvolstore that commands change stays one that SPDK opens.

use super::support::{Image, hex, on, unpack};
use super::writing::{done, id, in_order, named};
use serde_json::json;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const UUID: &str = "1111aaaa-2222-4333-8444-555555555555";

fn lvolstore() -> Image {
    let image = Image::new(&vec![0; 32 << 20]);
    done(&image, "init", &["--cluster-size", "1M", "--lvolstore", "lvs0"]);
    done(&image, "create", &["--size", "4M", "--name", "vol"]);
    image
}

/// What SPDK keeps of a text: the text and a NUL.
fn kept(text: &str) -> serde_json::Value {
    json!(hex(format!("{text}\0").as_bytes()))
}

#[test]
fn a_uuid_is_kept_as_spdk_keeps_it_and_nothing_else_is_one() {
    let image = lvolstore();
    for (blob, typed) in [("lvs0", UUID), ("vol", "AAAAAAAA-2222-4333-8444-55555555AAAA")] {
        done(&image, "xattr", &[blob, "set", "uuid", typed]);
        assert_eq!(named(&image, blob)["xattrs"]["uuid"], kept(&typed.to_ascii_lowercase()));
        for wrong in ["zzz", "", "1111aaaa222243338444555555555555", "00000000-0000-0000-0000-000000000000"] {
            on(&image, "xattr", &[blob, "set", "uuid", wrong]).fails(1, &["UUID"]);
        }
    }
    let created = ["--size", "1M", "--name", "q", "--xattr"];
    on(&image, "create", &[&created[..], &["uuid=zzz"]].concat())
        .fails(1, &["zzz is not a UUID", "36 characters"]);
    let upper = format!("uuid={}", UUID.to_ascii_uppercase());
    on(&image, "create", &[&created[..], &[&upper]].concat())
        .fails(1, &[UUID, "the UUID of blob", "store.img", "choose another"]);
    on(&image, "snapshot", &["vol", "--name", "s", "--xattr", &upper]).fails(1, &[UUID, "choose another"]);
    on(&image, "xattr", &["vol", "set", "uuid", UUID]).fails(1, &[UUID, "choose another"]);
    done(&image, "xattr", &["lvs0", "set", "uuid", UUID]);
    done(&image, "create", &[&created[..], &["uuid=BBBBBBBB-2222-4333-8444-555555555555"]].concat());
    assert_eq!(named(&image, "q")["xattrs"]["uuid"], kept("bbbbbbbb-2222-4333-8444-555555555555"));
    in_order(&image);
}

#[test]
fn the_super_blob_of_an_lvolstore_goes_only_by_force() {
    for (command, rest) in [("rm", &["lvs0"][..]), ("super", &["none"]), ("super", &["vol"])] {
        let image = lvolstore();
        let before = image.sha256();
        on(&image, command, rest)
            .fails(1, &["super blob of", "store.img", "SPDK opens no volume", "--force"]);
        // The load marks the store as used and the unload as clean again: the same bytes.
        assert_eq!(image.sha256(), before, "{command} {rest:?}");
        done(&image, command, &[rest, &["--force"]].concat());
    }
    let image = lvolstore();
    done(&image, "super", &["lvs0"]);
    done(&image, "rm", &["vol"]);
    in_order(&image);
}

#[test]
fn an_lvolstore_that_has_no_super_blob_gets_one_that_spdk_accepts() {
    let image = lvolstore();
    let lvs0 = on(&image, "super", &[]).text().trim().to_owned();
    done(&image, "super", &["none", "--force"]);
    on(&image, "super", &["vol"]).fails(1, &["lvolstore", "empty", "uuid and name"]);
    assert_eq!(done(&image, "super", &[&lvs0]).trim(), lvs0);
    assert_eq!(on(&image, "info", &["--json"]).json()["lvolstore"]["name"], "lvs0");
}

#[test]
fn the_super_blob_of_any_other_store_is_free_to_choose() {
    let image = Image::new(&vec![0; 32 << 20]);
    done(&image, "init", &["--cluster-size", "1M"]);
    let first = id(&image, "create", &["--size", "1M", "--xattr", "uuid=zzz"]);
    done(&image, "super", &[&first]);
    done(&image, "super", &["none"]);
    done(&image, "super", &[&first]);
    done(&image, "rm", &[&first]);
    in_order(&image);
}

#[test]
fn an_external_snapshot_in_an_lvolstore_is_named_by_a_uuid() {
    let image = lvolstore();
    let clone = ["--size", "1M", "--name", "clone", "--external-snapshot"];
    on(&image, "create", &[&clone[..], &["disk7"]].concat()).fails(1, &["disk7 is not a UUID"]);
    on(&image, "create", &[&clone[..], &["0x00"]].concat()).fails(1, &["UUID"]);
    done(&image, "create", &[&clone[..], &[&UUID.to_ascii_uppercase()]].concat());
    assert_eq!(named(&image, "clone")["parent"]["external"], UUID);
    done(&image, "create", &["--size", "4M", "--thin", "--name", "thin"]);
    on(&image, "set-parent", &["thin", "--external", "disk7"]).fails(1, &["disk7 is not a UUID"]);
}

#[test]
fn a_store_that_says_it_is_an_lvolstore_is_one() {
    let image = Image::new(&vec![0; 32 << 20]);
    on(&image, "init", &["--bstype", "LVOLSTORE"]).fails(2, &["--lvolstore NAME"]);
    let lvs = Image::new(&unpack("lvs"));
    on(&lvs, "rm", &["lvs0"]).fails(1, &["super blob", "--force"]);
}

#[test]
fn the_super_blob_of_an_lvolstore_gets_no_data_and_is_given_up_only_by_force() {
    let input = Image::new(&[7; 4096]);
    let input = input.path().to_str().unwrap().to_owned();
    for (command, rest) in [
        ("snapshot", &["lvs0", "--name", "s"][..]),
        ("resize", &["lvs0", "1M"]),
        ("import", &["lvs0", &input]),
        ("import", &["--in-place", "lvs0", &input]),
        ("set-parent", &["lvs0", "snap"]),
    ] {
        let image = lvolstore();
        done(&image, "snapshot", &["vol", "--name", "snap"]);
        let before = image.sha256();
        on(&image, command, rest).fails(1, &["super blob of", "store.img", "name a volume"]);
        assert_eq!(image.sha256(), before, "{command} {rest:?}");
        assert_eq!(on(&image, "check", &[]).code, 0, "{command} {rest:?}");
    }
    let image = lvolstore();
    let before = image.sha256();
    let super_blob = done(&image, "super", &[]).trim().to_owned();
    let give_up = ["--repair", "--give-up", &super_blob];
    on(&image, "check", &give_up)
        .fails(1, &[&super_blob, "super blob of", "SPDK opens no volume", "--force"]);
    assert_eq!(image.sha256(), before);
    assert_eq!(on(&image, "check", &[&give_up[..], &["--force"]].concat()).code, 4);
    assert_eq!(done(&image, "super", &[]).trim(), "none");
}

#[test]
fn a_name_in_an_lvolstore_is_text_that_a_daemon_can_show() {
    let bytes = OsStr::from_bytes(b"\xff");
    let words = |words: &[&str]| words.iter().map(|word| OsStr::new(word).to_owned()).collect::<Vec<_>>();
    let image = lvolstore();
    let path = image.path().as_os_str().to_owned();
    let before = image.sha256();
    let with = |start: &[&str], rest: &[&str], last: Option<&str>| {
        let mut all = vec![OsStr::new(start[0]).to_owned(), path.clone()];
        all.extend(words(&start[1..]));
        all.extend(words(rest));
        all.push(bytes.to_owned());
        all.extend(last.map(|last| OsStr::new(last).to_owned()));
        super::support::blob(all)
    };
    for (code, ended) in [
        (1, with(&["create"], &["--clusters", "1", "--name"], None)),
        (1, with(&["snapshot"], &["vol", "--name"], None)),
        (1, with(&["import"], &["--create", "/dev/null", "--name"], None)),
        (1, with(&["xattr"], &["vol", "set", "name"], None)),
        (2, with(&["init"], &["--force", "--lvolstore"], None)),
    ] {
        assert_eq!(ended.code, code, "{}", ended.err);
        assert!(ended.err.contains("\\xff") && ended.err.contains("UTF-8"), "{}", ended.err);
    }
    assert_eq!(image.sha256(), before);
}

#[test]
fn a_check_names_what_a_daemon_cannot_show_of_an_lvolstore() {
    for (blob, code) in [("vol", "lvol-name"), ("lvs0", "lvolstore-name")] {
        for name in [&b"\xff\0"[..], b"\0", b"without"] {
            let image = lvolstore();
            let id = named(&image, blob)["id"].as_u64().unwrap();
            let mut bytes = std::fs::read(image.path()).unwrap();
            super::check::rewrite(&mut bytes, id, &[], |meta| meta.xattrs.set(b"name", name).unwrap());
            let image = Image::new(&bytes);
            assert_eq!(super::check::codes(&image, &[]), [code], "{blob} {name:?}");
            assert_eq!(on(&image, "check", &[]).code, 4);
        }
    }
}
