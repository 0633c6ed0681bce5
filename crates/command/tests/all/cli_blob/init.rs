//! Making a store: what it is, and what it refuses to destroy.

use super::support::{HELLO, Image, blob, on, unpack};
use super::writing::{done, id, in_order, named};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

fn blank() -> Image {
    Image::new(&vec![0; 32 << 20])
}

#[test]
fn a_new_file_gets_a_clean_store_whose_metadata_has_real_blocks() {
    let image = blank();
    let path = image.beside("new.img");
    let path = path.to_str().unwrap();
    let made = blob(["init", path, "--size", "1G", "--cluster-size", "1M", "--json"]).json();
    assert_eq!((&made["clean"], &made["size"]), (&json!(true), &json!(1 << 30)));
    assert_eq!((&made["cluster_size"], &made["io_unit_size"]), (&json!(1 << 20), &json!(4096)));
    assert_eq!(made["regions"]["metadata"]["len"], 1024);
    assert_eq!(made["free_clusters"], 1024 - 5);
    let taken = fs::metadata(path).unwrap().blocks() * 512;
    let metadata = 4096 * (4 + 1024);
    assert!((metadata..2 * metadata).contains(&taken), "{taken} bytes taken for {metadata} of metadata");
}

#[test]
fn options_choose_the_layout() {
    let image = blank();
    let rest =
        ["--cluster-size", "128K", "--md-pages", "77", "--bstype", "mine", "--block-size", "512", "--json"];
    let made = on(&image, "init", &rest).json();
    assert_eq!((&made["cluster_size"], &made["io_unit_size"]), (&json!(128 << 10), &json!(512)));
    assert_eq!((&made["regions"]["metadata"]["len"], &made["bstype"]), (&json!(77), &json!("mine")));
    let rest = ["--cluster-size", "64K", "--md-ratio", "200", "--md-page-size", "8K", "--force", "--json"];
    let made = on(&image, "init", &rest).json();
    assert_eq!((&made["regions"]["metadata"]["len"], &made["md_page_size"]), (&json!(1024), &json!(8192)));
    in_order(&image);
}

#[test]
fn what_cannot_be_is_refused_with_the_option_and_leaves_no_file() {
    let image = blank();
    let path = image.beside("new.img");
    let name = path.to_str().unwrap();
    for (rest, code, saying) in [
        (&["--size", "1M"][..], 1, &["new.img", "8388608", "larger device"][..]),
        (&["--size", "0"], 2, &["--size is 0", "new.img", "8388608"]),
        (&["--size", "1K"], 1, &["new.img", "8388608"]),
        // One cluster, and that holds the metadata.
        (&["--size", "4M"], 1, &["new.img", "has 4194304 bytes", "at least 8388608"]),
        (&["--size", "7M", "--lvolstore", "lvs"], 1, &["at least 8388608"]),
        (&["--size", "64M", "--md-pages", "20000"], 1, &["at least 88080384"]),
        (&["--size", "64M", "--cluster-size", "4K"], 1, &["all of any device", "larger clusters"]),
        (&["--size", "64M", "--cluster-size", "5000"], 2, &["--cluster-size", "4096"]),
        (&["--size", "64M", "--md-pages", "0"], 2, &["--md-pages"]),
        (&["--size", "64M", "--md-page-size", "5000"], 2, &["--md-page-size"]),
        (&["--size", "64M", "--md-page-size", "2K"], 2, &["--md-page-size is 2048", "multiple of 4096"]),
        (
            &["--size", "8G", "--cluster-size", "4M", "--md-page-size", "2M"],
            2,
            &["--md-page-size", "at most 1 MiB"],
        ),
        (&["--size", "64M", "--lvolstore", "l", "--md-page-size", "8K"], 2, &["--md-page-size", "SPDK"]),
        (&["--size", "64M", "--bstype", "seventeen bytes!!"], 2, &["16 bytes"]),
        (&["--size", "64M", "--lvolstore", ""], 2, &["1 to 63 bytes"]),
        (&[], 1, &["new.img", "--size"]),
    ] {
        let ended = blob(["init", name].iter().chain(rest));
        ended.fails(code, saying);
        assert!(!path.exists(), "{rest:?} leaves nothing behind");
    }
    for block in ["0", "100", "600", "128K"] {
        let ended = blob(["init", name, "--size", "64M", "--block-size", block]);
        assert_eq!(ended.code, 2, "{block}: {}", ended.err);
        assert!(ended.err.contains("--block-size") && ended.err.contains("a power of two"), "{}", ended.err);
        assert!(!path.exists());
    }
    for rest in [&["--size", "12X"][..], &["--size", "-1"], &["--clear", "all"], &["--cluster-size", "8G"]] {
        assert_eq!(blob(["init", name].iter().chain(rest)).code, 2, "{rest:?}");
        assert!(!path.exists());
    }
}

#[test]
fn a_size_never_changes_a_file_that_is_there() {
    let image = Image::new(b"precious");
    on(&image, "init", &["--size", "64M", "--force"]).fails(1, &["store.img", "there already", "--size"]);
    assert_eq!(fs::read(image.path()).unwrap(), b"precious");
}

#[test]
fn nothing_known_is_overwritten_unless_forced() {
    let size = 32_u64 << 20;
    let swap = |at: u64| (at, &b"SWAPSPACE2"[..]);
    for (what, (at, magic)) in [
        ("GPT", (512, &b"EFI PART"[..])),
        ("GPT", (size - 512, b"EFI PART")),
        ("partition table", (510, b"\x55\xAA")),
        ("ext4", (1080, b"\x53\xEF")),
        ("XFS", (0, b"XFSB")),
        ("btrfs", (65600, b"_BHRfS_M")),
        ("LVM", (512, b"LABELONE")),
        ("LUKS", (0, b"LUKS\xBA\xBE")),
        ("md raid", (4096, b"\xFC\x4E\x2B\xA9")),
        ("md raid", (size - 8192, b"\xFC\x4E\x2B\xA9")),
        ("swap", swap(4086)),
        ("ZFS", (128 << 10, b"\x0C\xB1\xBA\0\0\0\0\0")),
        ("NTFS", (3, b"NTFS    ")),
        ("FAT", (82, b"FAT32   ")),
        ("ISO 9660", (32769, b"CD001")),
        ("qcow2", (0, b"QFI\xFB")),
    ] {
        let image = blank();
        let file = fs::File::options().write(true).open(image.path()).unwrap();
        file.write_all_at(magic, at).unwrap();
        let before = image.sha256();
        let place = format!("byte {at}");
        on(&image, "init", &[]).fails(1, &["store.img", what, &place, "--force"]);
        assert_eq!(image.sha256(), before, "{what} is untouched");
        done(&image, "init", &["--force"]);
        in_order(&image);
    }
}

#[test]
fn a_store_is_replaced_by_an_empty_one_only_if_forced() {
    let image = Image::new(&HELLO);
    on(&image, "init", &[]).fails(1, &["store.img", "a Blobstore", "byte 0", "--force"]);
    assert_eq!(fs::read(image.path()).unwrap(), *HELLO);
    done(&image, "init", &["--force", "--cluster-size", "1M"]);
    assert_eq!(on(&image, "ls", &["--json"]).json(), json!([]));
    in_order(&image);
    // Nothing of the old blobs shows through new ones.
    for more in [&["--thin", "--name", "thin"][..], &["--name", "thick"]] {
        done(&image, "create", &[&["--clusters", "4"], more].concat());
        let name = more.last().unwrap();
        assert!(super::writing::contents(&image, name).iter().all(|&byte| byte == 0), "{name}");
    }
}

#[test]
fn an_lvolstore_has_what_spdk_looks_for_and_its_blobs_too() {
    let image = blank();
    let made = on(&image, "init", &["--cluster-size", "1M", "--lvolstore", "lvs0", "--json"]).json();
    assert_eq!((&made["bstype"], &made["lvolstore"]["name"]), (&json!("LVOLSTORE"), &json!("lvs0")));
    assert_eq!(made["lvolstore"]["uuid"].as_str().unwrap().len(), 36);
    assert_eq!(made["super_blob_id"], named(&image, "lvs0")["id"]);
    let nameless = on(&image, "create", &["--size", "1M"]);
    nameless.fails(1, &["lvolstore", "--name"]);
    let first = id(&image, "create", &["--size", "1M", "--name", "disk"]);
    let second = id(&image, "snapshot", &["disk", "--name", "snap"]);
    let third = id(&image, "clone", &["snap", "--name", "copy"]);
    for (id, name) in [(first, "disk"), (second, "snap"), (third, "copy")] {
        let xattrs = on(&image, "xattr", &[&id, "--json"]).json();
        let hexadecimal = |text: &str| super::support::hex(text.as_bytes());
        assert_eq!(xattrs["name"], hexadecimal(&format!("{name}\0")));
        let uuid = xattrs["uuid"].as_str().unwrap();
        assert!(uuid.len() == 74 && uuid.ends_with("00"), "36 characters and a NUL: {uuid}");
    }
    on(&image, "xattr", &["disk", "rm", "name"]).fails(1, &["lvolstore", "name"]);
    done(&image, "xattr", &["disk", "set", "name", "renamed"]);
    assert_eq!(named(&image, "renamed")["xattrs"]["name"], super::support::hex(b"renamed\0"));
    in_order(&image);
}

#[test]
fn a_fixture_that_is_an_lvolstore_stays_one() {
    let image = Image::new(&unpack("lvs"));
    on(&image, "create", &["--size", "1M", "--name", "thin"]).fails(1, &["thin", "choose another"]);
    done(&image, "create", &["--size", "1M", "--name", "mine"]);
    assert_eq!(on(&image, "info", &["--json"]).json()["lvolstore"]["name"], "lvs0");
    in_order(&image);
}
