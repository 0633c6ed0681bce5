//! Images that are cut off, empty, or not what they say: an error with structure and offset, never a crash.

use super::check::load;
use super::support::{HELLO, Image, change_page, hex, on, page_of, unpack};
use serde_json::json;
use spindle_format::PageIdx;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Byte where the metadata pages of the small fixture begin.
const METADATA: usize = 16384;

/// Every command on an image that no command can use.
#[track_caller]
fn all_fail(bytes: &[u8], saying: &[&str]) {
    let image = Image::new(bytes);
    for (verb, rest) in [
        ("info", &[][..]),
        ("info", &["--json"]),
        ("ls", &[]),
        ("ls", &["--json"]),
        ("export", &["alpha", "-"]),
    ] {
        on(&image, verb, rest).fails(1, saying);
    }
    let dump = on(&image, "dump", &[]);
    assert_eq!(dump.code, 1, "{}", dump.err);
    for word in saying {
        assert!(dump.err.contains(word), "{word:?} is missing in: {}", dump.err);
    }
}

#[test]
fn an_empty_or_zeroed_image_is_no_store() {
    all_fail(b"", &["store.img", "super block at byte 0", "4096"]);
    all_fail(&[0; 100], &["super block at byte 0", "4096", "100"]);
    all_fail(&vec![0; 8 << 20], &["super block at byte 0", "signature"]);
}

#[test]
fn garbage_is_no_store() {
    let garbage: Vec<u8> = (0_u32..1 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    all_fail(&garbage, &["super block at byte 0", "signature"]);
}

#[test]
fn an_image_shorter_than_its_store_shows_what_is_there_and_is_not_written_to() {
    let geometry = load(&HELLO).geometry;
    for len in [4096, 20_000, 1 << 20, HELLO.len() - 1] {
        let image = Image::new(&HELLO[..len]);
        let sizes = [format!("it has {len} bytes"), format!("to {} bytes to read it", HELLO.len())];
        let said = ["cut short", &sizes[0], &sizes[1]];
        let info = on(&image, "info", &[]);
        assert_eq!(info.code, 0, "{len}: {}", info.err);
        assert!(said.iter().all(|word| info.err.contains(word)), "{}", info.err);
        on(&image, "create", &["--size", "1M"]).fails(1, &said);
        // Something is wrong with the store, which is what 4 says; a repair has nothing to write it to.
        let check = on(&image, "check", &["--json"]);
        assert_eq!(check.code, 4, "{len}: {}", check.err);
        let found: serde_json::Value = serde_json::from_slice(&check.out).unwrap();
        assert_eq!(found[0]["code"], "cut-short", "{len}: {found}");
        let what = found[0]["what"].as_str().unwrap();
        assert!(what.contains(&format!("{len} bytes of the {} ", HELLO.len())), "{what}");
        // If its metadata is cut, the owners of the missing data are unknown.
        let cut = len as u64 <= geometry.page_offset(PageIdx(geometry.md_pages() - 1));
        assert_eq!(what.contains("of metadata are after its end"), cut, "{len}: {what}");
        assert!(!(cut && what.contains("no blob has data")), "{len}: {what}");
        let says = |one: &&serde_json::Value| one["what"].as_str().unwrap().starts_with("metadata page ");
        let pages = found.as_array().unwrap().iter().filter(says).count();
        assert_eq!(pages, 0, "{len}: one finding for all pages after the end");
        on(&image, "check", &["--repair"]).fails(1, &said);
        assert_eq!(std::fs::read(image.path()).unwrap(), HELLO[..len], "nothing was written");
    }
}

#[test]
fn a_blob_is_exported_from_a_cut_image_only_if_all_of_it_is_there() {
    let mut image = Image::new(&HELLO);
    let whole = on(&image, "export", &["alpha", "-"]).out;
    let map = on(&image, "check", &["--json"]);
    assert_eq!(map.code, 0, "{}", map.err);
    let (mut complete, mut refused) = (0, 0);
    for len in (1..HELLO.len()).step_by(200_000).rev() {
        image = Image::new(&HELLO[..len]);
        let out = image.beside("out");
        let ended = on(&image, "export", &["alpha", out.to_str().unwrap()]);
        match ended.code {
            0 => {
                assert!(std::fs::read(&out).unwrap() == whole, "{len}: all of it");
                complete += 1;
            }
            _ if len >= 4096 && ended.err.contains("is not complete") => {
                assert_eq!(ended.code, 1, "{len}: {}", ended.err);
                assert!(ended.err.contains(&format!("truncate -s {}", HELLO.len())), "{}", ended.err);
                assert!(!out.exists(), "{len}: no half of it");
                let check = on(&image, "check", &["--json"]);
                assert!(String::from_utf8_lossy(&check.out).contains("after its end is data of blob"));
                refused += 1;
            }
            code => assert_eq!(code, 1, "{len}: {}", ended.err),
        }
    }
    assert!(complete > 0 && refused > 0, "{complete} complete, {refused} refused");
}

#[test]
fn a_flipped_bit_of_the_super_block_is_told_by_its_crc_and_dump_still_decodes() {
    let mut bytes = HELLO.clone();
    bytes[4000] ^= 1;
    all_fail(&bytes, &["super block at byte 0", "crc"]);
    let image = Image::new(&bytes);
    let dump = on(&image, "dump", &[]);
    assert!(dump.text().contains("root of blob 0x100000000"), "{}", dump.text());
    let dump = on(&image, "dump", &["--json"]);
    let value: serde_json::Value = serde_json::from_slice(&dump.out).unwrap();
    assert!(value["super_block"]["error"].as_str().unwrap().contains("crc"));
    assert_eq!(value["pages"][0]["in_use"], json!(null));
}

#[test]
fn one_damaged_blob_is_set_aside_and_the_rest_works() {
    let mut bytes = HELLO.clone();
    page_of(&mut bytes, 0)[100] ^= 1;
    let image = Image::new(&bytes);
    let listed = on(&image, "ls", &[]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    assert!(listed.err.contains("1 damaged blob"), "{}", listed.err);
    assert!(!listed.text().contains("0x100000000 "));
    assert!(listed.text().contains("beta"), "{}", listed.text());
    let info = on(&image, "info", &["--json"]).json();
    assert_eq!(info["damaged"][0]["id"], json!(0x1_0000_0000_u64));
    let error = info["damaged"][0]["errors"][0].as_str().unwrap();
    assert!(
        error.contains(&format!("metadata page 0 at byte {METADATA}")) && error.contains("crc"),
        "{error}"
    );
    assert!(on(&image, "info", &[]).text().contains("Damaged blobs"));
    on(&image, "export", &["0x100000000", "-"]).fails(1, &["0x100000000", "damaged", "crc"]);
    assert_eq!(on(&image, "export", &["theta", "-"]).code, 0);
    assert!(on(&image, "dump", &[]).text().contains("WRONG"));
}

#[test]
fn an_absurd_size_costs_nothing_and_is_no_export() {
    let mut bytes = unpack("steps/7-unloaded");
    // The clone's extent table: 20 clusters become more than any file can hold.
    change_page(&mut bytes, 4, |page| {
        let table = page.windows(5).position(|w| w == [5, 16, 0, 0, 0]).expect("the extent table");
        page[table + 5..table + 13].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    });
    let image = Image::new(&bytes);
    let listed = on(&image, "ls", &["--json"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    for blob in listed.json().as_array().unwrap() {
        let id = blob["id"].to_string();
        let file = image.beside(&id);
        let target = file.to_str().unwrap();
        let ended = on(&image, "export", &[&id, target]);
        assert!(ended.code == 0 || (ended.code == 1 && !file.exists()), "{id}: {}", ended.err);
    }
}

#[test]
fn a_flip_anywhere_in_the_metadata_never_crashes_a_command() {
    // In every page that holds something, its CRC put right so that the damage is believed.
    let image = Image::new(&HELLO);
    let file = File::options().write(true).open(image.path()).unwrap();
    for page in (0..METADATA + (16 << 12)).step_by(4096) {
        let whole = &HELLO[page..page + 4096];
        for at in (0..4092).step_by(127) {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x81;
            let crc = spindle_format::crc::crc32c(&bytes[..4092]);
            bytes[4092..].copy_from_slice(&crc.to_le_bytes());
            file.write_all_at(&bytes, page as u64).unwrap();
            for verb in ["ls", "dump"] {
                let ended = on(&image, verb, &[]);
                assert!(matches!(ended.code, 0 | 1), "{verb}, byte {}: {}", page + at, ended.err);
                assert!(!ended.err.contains("panicked"), "{verb}, byte {}: {}", page + at, ended.err);
            }
        }
        file.write_all_at(whole, page as u64).unwrap();
    }
}

#[test]
fn a_snapshot_cut_off_while_it_was_made_is_shown_as_a_writing_load_would_leave_it() {
    // SPDK's snapshot of B, page 4 in step 6: taken back to the moment before its last write, when it still
    // carries SNAPTMP and is not read-only yet.
    let before = unpack("steps/4-thin-written");
    let after = unpack("steps/5-snapshot");
    let differs = |page: usize| {
        page_of(&mut before.clone(), page).to_vec() != page_of(&mut after.clone(), page).to_vec()
    };
    let original = 2;
    assert!(differs(original), "the snapshot changed its original, page {original}");
    let image = Image::new(&after);
    let blobs = on(&image, "ls", &["--json"]).json();
    let snapshot =
        blobs.as_array().unwrap().iter().find(|blob| blob["read_only"] == true).expect("a snapshot");
    let (id, page) = (snapshot["id"].as_u64().unwrap(), snapshot["id"].as_u64().unwrap() as u32 as usize);
    assert_eq!(snapshot["clones"], json!([0x1_0000_0000_u64 + original as u64]));

    let unfinished = |original_page: &[u8]| {
        let mut bytes = after.clone();
        page_of(&mut bytes, original).copy_from_slice(original_page);
        change_page(&mut bytes, page, |page| {
            // Not read-only, and an internal xattr behind the flags.
            page[16 + 5 + 8] = 0;
            let marker =
                [&[4, 19, 0, 0, 0, 7, 0, 8, 0][..], b"SNAPTMP", &(original as u64 | 1 << 32).to_le_bytes()];
            let marker = marker.concat();
            page.copy_within(45..4088 - marker.len(), 45 + marker.len());
            page[45..45 + marker.len()].copy_from_slice(&marker);
        });
        Image::new(&bytes)
    };

    // The original already stands on it: it is finished.
    let done = unfinished(page_of(&mut after.clone(), original));
    let hash = done.sha256();
    assert_eq!(on(&done, "ls", &["--json"]).json(), blobs);
    let info = on(&done, "info", &["--json"]).json();
    let what = info["repairs"].to_string();
    assert!(what.contains(&format!("{id:#x}")), "the repair names the snapshot: {what}");
    assert!(on(&done, "info", &[]).text().contains("Repairs that a writing load would make"));
    assert_eq!(done.sha256(), hash, "the repair is not written");

    // The original does not: there is no snapshot.
    let undone = unfinished(page_of(&mut before.clone(), original));
    let left = on(&undone, "ls", &["--json"]).json();
    assert!(left.as_array().unwrap().iter().all(|blob| blob["id"] != id), "{left}");
    let exported = on(&undone, "export", &[&format!("{:#x}", 0x1_0000_0000_u64 + original as u64), "-"]);
    let same = on(&Image::new(&before), "export", &["0x100000002", "-"]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    assert_eq!(hex(&exported.out[512 * 4096..][..64]), hex(&same.out[512 * 4096..][..64]));
    assert!(exported.out == same.out);
}
