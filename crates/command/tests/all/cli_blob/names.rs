//! Names: found, not found, ambiguous, and made of bytes that a terminal must not see.

use super::support::{FIRST_ID, HELLO, Image, blob, change_page, on, replace, unpack};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The small fixture with another name, as long as the old one, for blob 0, `alpha`.
fn renamed(name: &[u8; 5]) -> Image {
    let mut bytes = HELLO.clone();
    change_page(&mut bytes, 0, |page| replace(page, b"alpha", name));
    Image::new(&bytes)
}

#[test]
fn an_unknown_name_lists_similar_ones() {
    let image = Image::new(&HELLO);
    on(&image, "export", &["alhpa", "-"])
        .fails(1, &["alhpa", "store.img", "did you mean", "0x100000000 (alpha)"]);
    on(&image, "export", &["zzzzzzzz", "-"])
        .fails(1, &["zzzzzzzz", "0x100000000 (alpha)", "spindle blob ls"]);
    on(&image, "export", &["0", "-"]).fails(1, &["did you mean 0x100000000"]);
    on(&image, "export", &["0x1000000ff", "-"]).fails(1, &["0x1000000ff"]);
    let empty = Image::fixture("steps/1-init");
    on(&empty, "export", &["any", "-"]).fails(1, &["no blobs"]);
}

#[test]
fn an_ambiguous_name_lists_every_candidate() {
    let mut bytes = HELLO.clone();
    let blobs = on(&Image::new(&HELLO), "ls", &["--json"]).json();
    let theta = blobs.as_array().unwrap().iter().find(|blob| blob["name"] == "theta").unwrap();
    let page = theta["id"].as_u64().unwrap() as u32 as usize;
    change_page(&mut bytes, page, |page| replace(page, b"theta", b"alpha"));
    let image = Image::new(&bytes);
    let other = format!("{:#x}", FIRST_ID + page as u64);
    on(&image, "export", &["alpha", "-"]).fails(1, &["more than one", "0x100000000", &other]);
    assert_eq!(on(&image, "export", &[&other, "-"]).code, 0);
}

#[test]
fn a_name_is_not_empty_and_a_long_one_is_listed_in_part() {
    let image = Image::new(&HELLO);
    let ended = on(&image, "create", &["--size", "0", "--name", ""]);
    assert!(ended.code == 2 && ended.err.contains("a name is not empty"), "{}", ended.err);
    let long = "x".repeat(3000);
    assert_eq!(on(&image, "create", &["--size", "0", "--name", &long]).code, 0);
    let listed = on(&image, "ls", &[]);
    assert!(listed.text().contains("xxx...") && listed.text().lines().all(|line| line.len() < 200));
    let all = on(&image, "ls", &["--json"]).json();
    assert!(all.as_array().unwrap().iter().any(|blob| blob["name"] == long.as_str()));
    assert!(on(&image, "xattr", &[&long]).text().contains(&long));
}

#[test]
fn control_characters_in_a_name_are_escaped_for_people_and_kept_for_scripts() {
    let image = renamed(b"\x1b[2J\n");
    let listed = on(&image, "ls", &[]);
    assert!(listed.text().contains("\\u{1b}[2J\\n"), "{}", listed.text());
    let dump = on(&image, "dump", &[]);
    for output in [&listed.out, &dump.out] {
        assert!(!output.contains(&0x1b), "no escape character reaches the terminal");
    }
    assert_eq!(on(&image, "ls", &["--json"]).json()[0]["name"], "\x1b[2J\n");
    assert_eq!(on(&image, "export", &["\x1b[2J\n", "-"]).code, 0, "the name itself finds the blob");
    let missing = on(&image, "export", &["\x1b[2Jx", "-"]);
    missing.fails(1, &["\\u{1b}[2Jx", "\\u{1b}[2J\\n"]);
    assert!(!missing.err.contains('\x1b'));
}

#[test]
fn a_name_that_is_no_text_is_listed_escaped_and_can_be_typed() {
    let image = renamed(b"a\xff\xfe\x80z");
    assert!(on(&image, "ls", &[]).text().contains("a\\xff\\xfe\\x80z"));
    assert_eq!(on(&image, "ls", &["--json"]).json()[0]["name"], "a\\xff\\xfe\\x80z");
    let name = OsStr::from_bytes(b"a\xff\xfe\x80z");
    let ended = blob([OsStr::new("export"), image.path().as_os_str(), name, OsStr::new("-")]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn a_name_that_looks_like_another_blobs_id_is_ambiguous_until_the_id_is_written_otherwise() {
    let mut bytes = unpack("lvs");
    change_page(&mut bytes, 1, |page| replace(page, b"thick\0\0\0\0\0", b"4294967301"));
    let image = Image::new(&bytes);
    let both = ["more than one", "0x100000001 (4294967301)", "0x100000005 (thin)"];
    on(&image, "export", &["4294967301", "-"]).fails(1, &both);
    let thin = on(&image, "export", &["0x100000005", "-"]);
    assert_eq!((thin.code, thin.out.len()), (0, 16 << 20), "{}", thin.err);
}
