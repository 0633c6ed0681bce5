//! What the commands say of wrong arguments: what was typed, by its name, with what can be typed instead, and one exit
//! code for all of them.

use super::support::{HELLO, Image, on, page_of};
use super::writing::{done, id, import_stream, named, store};
use std::fs;

/// Wrong usage that says all of this.
#[track_caller]
fn wrong(image: &Image, verb: &str, rest: &[&str], saying: &[&str]) {
    let ended = on(image, verb, rest);
    assert_eq!(ended.code, 2, "{verb} {rest:?}: {}", ended.err);
    for word in saying {
        assert!(ended.err.contains(word), "{verb} {rest:?}: {word:?} is missing in {}", ended.err);
    }
}

#[test]
fn a_name_that_no_blob_can_have_is_wrong_usage_in_every_way_that_it_comes_in() {
    let image = store(16);
    done(&image, "create", &["--size", "64K", "--name", "vm"]);
    done(&image, "snapshot", &["vm", "--name", "snap"]);
    let before = image.sha256();
    let (long, id) = ("x".repeat(5000), "99999999999999999999".to_owned());
    for (name, says) in [("", "empty"), ("5", "id of a blob"), (&id, "id of a blob"), (&long, "shorten")] {
        let xattr = format!("name={name}");
        for (option, value) in [("--name", name), ("--xattr", &xattr)] {
            wrong(&image, "create", &["--size", "64K", option, value], &[option, says]);
            wrong(&image, "snapshot", &["vm", option, value], &[option, says]);
            wrong(&image, "clone", &["snap", option, value], &[option, says]);
            wrong(&image, "import", &["--create", "/dev/null", option, value], &[option, says]);
        }
        wrong(&image, "xattr", &["vm", "set", "name", name], &[says]);
    }
    wrong(&image, "create", &["--size", "64K", "--xattr", &format!("k={long}")], &["--xattr", "shorten"]);
    wrong(&image, "xattr", &["vm", "set", "k", &long], &["shorten"]);
    wrong(&image, "xattr", &["vm", "set", "", "v"], &["empty"]);
    wrong(&image, "init", &["--force", "--lvolstore", "5"], &["5 would be taken for the id"]);
    wrong(&image, "init", &["--force", "--lvolstore", ""], &["1 to 63 bytes"]);
    wrong(&image, "init", &["--force", "--lvolstore", &"x".repeat(64)], &["1 to 63 bytes"]);
    wrong(&image, "init", &["--force", "--bstype", &"x".repeat(17)], &["--bstype"]);
    let said = on(&image, "init", &["--force", "--lvolstore", "5"]).err;
    assert!(!said.contains("\\u{0}"), "{said}");
    assert_eq!(image.sha256(), before);
}

#[test]
fn errors_name_the_options_that_were_given() {
    let image = store(16);
    done(&image, "create", &["--size", "64K", "--name", "vm"]);
    wrong(&image, "init", &["--force", "--md-ratio", "0"], &["--md-ratio is 0"]);
    wrong(&image, "init", &["--force", "--md-pages", "0"], &["--md-pages is 0"]);
    on(&image, "create", &["--size", "1P"]).fails(1, &["--size: a blob has at most"]);
    on(&image, "create", &["--clusters", "5000000000"]).fails(1, &["--clusters: a blob has at most"]);
    on(&image, "resize", &["vm", "1P"]).fails(1, &["SIZE: a blob has at most"]);
    on(&image, "create", &["--size", "1G"]).fails(1, &["wanted", "free"]);
    let lvs = Image::new(&vec![0; 32 << 20]);
    done(&lvs, "init", &["--cluster-size", "1M", "--lvolstore", "lvs0"]);
    let clone = ["--size", "1M", "--name", "c", "--external-snapshot"];
    on(&lvs, "create", &[&clone[..], &["0x1234"]].concat()).fails(1, &["0x1234 is not a UUID"]);
    on(&lvs, "create", &[&clone[..], &["a b"]].concat()).fails(1, &["a b is not a UUID"]);
    on(&image, "rm", &[""]).fails(1, &["is called \"\""]);
}

#[test]
fn standard_input_is_called_so_and_its_length_is_not_guessed() {
    let image = store(16);
    done(&image, "create", &["--size", "64K", "--name", "vm"]);
    let ended = import_stream(&image, &["vm", "-"], &vec![1; 4 << 20]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    let last = ended.err.lines().last().unwrap();
    assert!(last.contains("standard input has") && last.contains("bytes or more"), "{}", ended.err);
    let script = "\"$0\" blob import \"$1\" --create - < /dev/zero";
    let run = std::process::Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_spindle")])
        .arg(image.path())
        .output()
        .unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.code() == Some(1) && said.contains("standard input never ends"), "{said}");
}

#[test]
fn a_blob_called_none_is_not_cleared_as_the_super_blob() {
    let image = store(16);
    let first = id(&image, "create", &["--size", "64K"]);
    done(&image, "super", &[&first]);
    assert_eq!(done(&image, "super", &["none"]).trim(), "none");
    done(&image, "super", &[&first]);
    let called = id(&image, "create", &["--size", "64K", "--name", "none"]);
    on(&image, "super", &["none"]).fails(1, &[&called, "--none"]);
    assert_eq!(done(&image, "super", &[]).trim(), first);
    assert_eq!(done(&image, "super", &["--none"]).trim(), "none");
    assert_eq!(done(&image, "super", &[&called]).trim(), called);
}

#[test]
fn a_check_counts_what_is_pending_apart_and_offers_no_option_that_it_has_not() {
    let mut bytes = HELLO.clone();
    page_of(&mut bytes, 5)[100] ^= 1;
    let image = Image::new(&bytes);
    let there = image.beside("there");
    fs::write(&there, "kept").unwrap();
    let ended =
        on(&image, "check", &["--repair", "--give-up", "0x100000005", "--undo", there.to_str().unwrap()]);
    ended.fails(1, &["there", "another name for --undo"]);
    assert!(!ended.err.contains("--force"), "{}", ended.err);
    assert_eq!(fs::read(&there).unwrap(), b"kept");
    // With an operation that a crash cut off.
    super::check::rewrite(&mut bytes, 0x1_0000_0009, &[], |meta| {
        meta.flags.data_read_only = 0;
        let of = 0x1_0000_0000_u64.to_le_bytes();
        meta.set_internal(spindle_format::metadata::internal::SNAPSHOT_IN_PROGRESS, &of).unwrap();
    });
    let ended = on(&Image::new(&bytes), "check", &[]);
    assert_eq!(ended.code, 4, "{}", ended.err);
    assert!(ended.text().contains("2 findings found"), "{}", ended.text());
    assert!(ended.err.contains("1 finding, and 1 that the next load"), "{}", ended.err);
}

#[test]
fn an_empty_name_that_is_there_already_is_seen() {
    let mut bytes = HELLO.clone();
    super::check::rewrite(&mut bytes, 0x1_0000_0000, &[], |meta| meta.xattrs.set(b"name", b"").unwrap());
    let image = Image::new(&bytes);
    let listed = on(&image, "ls", &[]);
    let line = listed.text().lines().find(|line| line.starts_with("0x100000000 ")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("\"\""), "{line}");
    assert_eq!(named(&image, "")["id_text"], "0x100000000");
}

#[test]
fn an_image_that_may_not_be_changed_is_refused_with_a_remedy() {
    let image = store(16);
    let made = std::process::Command::new("chattr").arg("+i").arg(image.path()).status();
    if !made.is_ok_and(|made| made.success()) {
        eprintln!("skipped: no file can be made immutable here");
        return;
    }
    let ended = on(&image, "create", &["--size", "64K"]);
    std::process::Command::new("chattr").arg("-i").arg(image.path()).status().unwrap();
    ended.fails(1, &["store.img", "chattr -i"]);
}
