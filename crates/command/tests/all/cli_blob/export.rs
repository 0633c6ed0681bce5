//! Exports: what they do to the file they write, and that they cannot harm what is there.

use super::support::{FIRST_ID, HELLO, Image, blob, command, manifest, on, sha256};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

/// Runs an export of a blob into a file.
fn export(image: &Image, name: &str, file: &Path, more: &[&str]) -> super::support::Ended {
    let start = [OsStr::new("export"), image.path().as_os_str(), OsStr::new(name), file.as_os_str()];
    blob(start.into_iter().chain(more.iter().map(OsStr::new)))
}

fn expected_sha256(id: u64) -> String {
    let manifest = manifest("hello");
    let volume = manifest["blobs"].as_array().unwrap().iter().find(|volume| volume["blob_id"] == id);
    volume.unwrap()["sha256"].as_str().unwrap().to_owned()
}

/// Names of everything in the image's folder.
fn files_beside(image: &Image) -> Vec<String> {
    let entries = fs::read_dir(image.path().parent().unwrap()).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_holds_the_blob_and_no_blocks_for_its_zeroes() {
    let image = Image::fixture("lvs");
    let file = image.beside("thin.raw");
    assert_eq!(export(&image, "thin", &file, &[]).code, 0);
    let bytes = fs::read(&file).unwrap();
    let manifest = manifest("lvs");
    let volumes = manifest["lvstores"][0]["lvols"].as_array().unwrap();
    let thin = volumes.iter().find(|volume| volume["name"] == "thin").unwrap();
    assert_eq!(sha256(&bytes), thin["sha256"].as_str().unwrap());
    let taken = fs::metadata(&file).unwrap().blocks() * 512;
    assert!(taken <= 5 << 20, "5 of 16 MiB are allocated in the blob, {taken} bytes in the file");
    assert_eq!(files_beside(&image), ["store.img", "thin.raw"]);
}

#[test]
fn a_blob_is_named_by_decimal_or_hexadecimal_id_or_by_its_name() {
    let image = Image::new(&HELLO);
    let decimal = FIRST_ID.to_string();
    let first = on(&image, "export", &["alpha", "-"]);
    assert_eq!(sha256(&first.out), expected_sha256(FIRST_ID));
    for name in [decimal.as_str(), "0x100000000"] {
        assert_eq!(on(&image, "export", &[name, "-"]).out, first.out, "{name}");
    }
}

#[test]
fn what_is_there_already_stays_unless_forced() {
    let image = Image::new(&HELLO);
    let file = image.beside("out");
    fs::write(&file, "precious").unwrap();
    export(&image, "alpha", &file, &[]).fails(1, &["out", "already", "--force"]);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert_eq!(export(&image, "alpha", &file, &["--force"]).code, 0);
    assert_eq!(sha256(&fs::read(&file).unwrap()), expected_sha256(FIRST_ID));
    assert_eq!(files_beside(&image), ["out", "store.img"]);
}

#[test]
fn a_forced_export_through_a_link_replaces_what_it_points_to() {
    let image = Image::new(&HELLO);
    let (file, link) = (image.beside("file"), image.beside("link"));
    fs::write(&file, "old").unwrap();
    symlink(&file, &link).unwrap();
    assert_eq!(export(&image, "alpha", &link, &["--force"]).code, 0);
    assert_eq!(sha256(&fs::read(&file).unwrap()), expected_sha256(FIRST_ID));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_forced_export_keeps_the_rights_and_the_owner_of_what_it_replaces() {
    let image = Image::new(&HELLO);
    let file = image.beside("file");
    for mode in [0o600, 0o640, 0o666] {
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        // Where this user may give files away.
        let _ = std::os::unix::fs::chown(&file, Some(12345), Some(23456));
        let before = fs::metadata(&file).unwrap();
        assert_eq!(export(&image, "alpha", &file, &["--force"]).code, 0);
        let after = fs::metadata(&file).unwrap();
        assert_ne!(after.ino(), before.ino());
        assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        assert_eq!(sha256(&fs::read(&file).unwrap()), expected_sha256(FIRST_ID));
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn an_export_through_a_link_to_nothing_is_refused_and_leaves_the_link() {
    let image = Image::new(&HELLO);
    let link = image.beside("link");
    symlink("nothing", &link).unwrap();
    for more in [&[][..], &["--force"]] {
        export(&image, "alpha", &link, more)
            .fails(1, &["link", "nothing", "is not there", "remove the link"]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(files_beside(&image), ["link", "store.img"]);
    }
}

#[test]
fn an_export_never_goes_over_what_it_reads() {
    let image = Image::new(&HELLO);
    let before = image.sha256();
    let (link, hard) = (image.beside("link"), image.beside("hard"));
    symlink(image.path(), &link).unwrap();
    fs::hard_link(image.path(), &hard).unwrap();
    for target in [image.path(), &link, &hard] {
        export(&image, "alpha", target, &["--force"]).fails(1, &["shares bytes with it"]);
    }
    let esnap = Image::new(b"external");
    let argument = format!("u={}", esnap.path().display());
    export(&image, "alpha", esnap.path(), &["--force", "--esnap", &argument])
        .fails(1, &["shares bytes with it"]);
    assert_eq!(image.sha256(), before);
    assert_eq!(fs::read(esnap.path()).unwrap(), b"external");
}

#[test]
fn a_failed_export_leaves_no_file() {
    let mut bytes = HELLO.clone();
    // Cut off within the root of the blob.
    bytes.truncate(20_000);
    let image = Image::new(&bytes);
    let file = image.beside("out");
    assert_eq!(export(&image, "alpha", &file, &[]).code, 1);
    assert_eq!(files_beside(&image), ["store.img"]);
    let image = Image::new(&HELLO);
    let refused = export(&image, "alpha", &image.beside("no/such/folder/out"), &[]);
    refused.fails(1, &["no/such/folder/out", "there is no folder", "mkdir -p"]);
    assert!(!refused.err.contains(".spindle-export"), "{}", refused.err);
    export(&image, "alpha", image.path().parent().unwrap(), &["--force"]).fails(1, &["irectory"]);
    assert_eq!(files_beside(&image), ["store.img"]);
}

#[test]
fn a_file_that_may_not_grow_is_removed() {
    let image = Image::new(&HELLO);
    let file = image.beside("out");
    // A limit of the shell stands for a full disk. Its signal would kill us unless it is ignored.
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" blob export \"$1\" alpha \"$2\"";
    let ended = std::process::Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_spindle")])
        .args([image.path(), &file])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("out cannot be"));
    assert_eq!(files_beside(&image), ["store.img"]);
}

#[test]
fn an_export_beyond_a_limit_on_file_sizes_fails_and_leaves_no_file() {
    let image = Image::new(&HELLO);
    let file = image.beside("out");
    let script = "ulimit -f 1000; ulimit -c 0; exec \"$0\" blob export \"$1\" alpha \"$2\"";
    let ended = std::process::Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_spindle")])
        .args([image.path(), &file])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(files_beside(&image), ["store.img"]);
}

#[test]
fn a_pipe_gets_every_byte_in_order() {
    let image = Image::new(&HELLO);
    let arguments = ["blob".as_ref(), "export".as_ref(), image.path().as_os_str(), "alpha".as_ref()];
    // Another name of its own standard output: a pipe that is there already and takes no --force.
    let arguments = arguments.into_iter().chain(["/dev/fd/1".as_ref()]);
    let ended = command(arguments).stdout(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(sha256(&ended.stdout), expected_sha256(FIRST_ID));
}

#[test]
fn a_new_file_gets_the_rights_of_any_new_file() {
    let image = Image::new(&HELLO);
    let (file, plain) = (image.beside("out"), image.beside("plain"));
    assert_eq!(export(&image, "alpha", &file, &[]).code, 0);
    fs::write(&plain, "").unwrap();
    let rights = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(rights(&file), rights(&plain));
}

#[test]
fn memory_does_not_follow_the_size_of_the_blob() {
    // The address space of the process is limited to less than the blob takes.
    let image = Image::fixture("many");
    let script = "ulimit -v 65536; exec \"$0\" blob export \"$1\" fragB - | wc -c";
    let ended = std::process::Command::new("bash")
        .args(["-o", "pipefail", "-c", script, env!("CARGO_BIN_EXE_spindle")])
        .arg(image.path())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let manifest = manifest("many");
    let volumes = manifest["lvstores"][0]["lvols"].as_array().unwrap();
    let frag = volumes.iter().find(|volume| volume["name"] == "fragB").unwrap();
    let size = frag["size_bytes"].as_u64().unwrap();
    assert_eq!(String::from_utf8(ended.stdout).unwrap().trim(), size.to_string());
}
