//! What is in use is not overwritten, nor read without a word, by whatever name it is called: loop devices over a file
//! are made where this user may make them.

use super::loops::Loop;
use super::streams::endless;
use super::support::{Ended, Image, blob, sha256};
use super::writing::{blobs, contents, done, pattern, store};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// `spindle blob` with paths and words.
fn run<'a>(words: impl IntoIterator<Item = &'a dyn AsRef<OsStr>>) -> Ended {
    blob(words.into_iter().map(|word| word.as_ref()))
}

/// A store with a blob `a`.
fn with_blob() -> Image {
    let image = store(32);
    done(&image, "create", &["--size", "1M", "--name", "a"]);
    image
}

/// A forced export of `a` into this file or device, which must be refused.
#[track_caller]
fn refused(image: &Path, target: &Path, says: &str) {
    let ended = run([&"export" as &dyn AsRef<OsStr>, &image, &"a", &target, &"--force"]);
    ended.fails(1, &[&target.display().to_string(), says]);
}

#[test]
fn an_export_never_goes_over_what_holds_bytes_of_what_it_reads() {
    let image = with_blob();
    let Some(device) = Loop::over(image.path()) else { return };
    let other = Loop::over(image.path()).unwrap();
    let before = image.sha256();
    for (from, to) in [
        (device.path(), image.path()),
        (image.path(), device.path()),
        (device.path(), other.path()),
        (device.path(), device.path()),
    ] {
        refused(from, to, "shares bytes with it");
        assert_eq!(image.sha256(), before, "{from:?} to {to:?}");
    }
}

#[test]
fn an_export_never_goes_over_what_another_program_writes() {
    let (image, served) = (with_blob(), with_blob());
    let link = served.beside("link");
    fs::hard_link(served.path(), &link).unwrap();
    let mut writer = endless(&served, &["--create", "--thin", "-"]);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(served.path());
    refused(image.path(), served.path(), "in use");
    refused(image.path(), &link, "in use");
    assert_eq!(inode(served.path()), before);
    if let Some(device) = Loop::over(served.path()) {
        refused(image.path(), device.path(), "in use");
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(blobs(&served).iter().any(|blob| blob["name"] == "a"));
}

#[test]
fn neither_an_export_nor_an_init_goes_over_a_file_that_a_loop_device_shows_or_a_file_system_that_is_mounted()
{
    let image = with_blob();
    let disk = Image::new(&vec![0; 16 << 20]);
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.path()).status();
    let Some(device) = Loop::over(disk.path()) else { return };
    let other = Loop::over(disk.path()).unwrap();
    refused(image.path(), disk.path(), "shows it");
    let point = disk.beside("mounted");
    fs::create_dir(&point).unwrap();
    let mounted = Command::new("mount").arg(device.path()).arg(&point).status();
    if !made.is_ok_and(|made| made.success()) || !mounted.is_ok_and(|mounted| mounted.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    // It is unmounted before anything is asserted.
    let ended = [device.path(), other.path()].map(|target| {
        let forced = run([&"export" as &dyn AsRef<OsStr>, &image.path(), &"a", &target, &"--force"]);
        let init = run([&"init" as &dyn AsRef<OsStr>, &target]);
        let over = run([&"init" as &dyn AsRef<OsStr>, &target, &"--force"]);
        [forced, init, over]
    });
    let unmounted = Command::new("umount").arg(&point).status();
    assert!(unmounted.unwrap().success());
    for ended in ended.iter().flatten() {
        ended.fails(1, &["in use", "mounted at"]);
    }
}

#[test]
fn a_forced_init_never_goes_over_a_file_that_a_loop_device_shows() {
    let image = with_blob();
    let Some(_device) = Loop::over(image.path()) else { return };
    let before = image.sha256();
    let ended = run([&"init" as &dyn AsRef<OsStr>, &image.path(), &"--force"]);
    ended.fails(1, &["in use", "shows it"]);
    assert_eq!(image.sha256(), before);
}

#[test]
fn an_export_goes_to_a_device_that_is_free() {
    let image = with_blob();
    fs::write(image.beside("input"), pattern(1, 1 << 20)).unwrap();
    done(&image, "import", &["a", image.beside("input").to_str().unwrap()]);
    let disk = Image::new(&vec![0; 2 << 20]);
    let Some(device) = Loop::over(disk.path()) else { return };
    let ended = run([&"export" as &dyn AsRef<OsStr>, &image.path(), &"a", &device.path(), &"--force"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    drop(device);
    assert_eq!(sha256(&fs::read(disk.path()).unwrap()[..1 << 20]), sha256(&contents(&image, "a")));
}

#[test]
fn a_store_is_not_imported_into_itself_by_any_name() {
    let image = with_blob();
    let Some(device) = Loop::over(image.path()) else { return };
    let other = Loop::over(image.path()).unwrap();
    let before = image.sha256();
    for (store, input) in [
        (image.path(), device.path()),
        (device.path(), image.path()),
        (device.path(), other.path()),
        (device.path(), device.path()),
        (image.path(), image.path()),
    ] {
        let ended = run([&"import" as &dyn AsRef<OsStr>, &store, &"--create", &"--thin", &input]);
        ended.fails(1, &[&input.display().to_string(), "the image itself"]);
        assert_eq!(image.sha256(), before, "{input:?} into {store:?}");
    }
}

#[test]
fn a_reader_of_a_loop_device_is_told_of_the_program_that_writes_to_its_file() {
    let image = with_blob();
    let Some(device) = Loop::over(image.path()) else { return };
    let other = Loop::over(device.path()).unwrap();
    let mut writer = endless(&image, &["--create", "--thin", "-"]);
    let read: Vec<Ended> = [device.path(), other.path(), image.path()]
        .into_iter()
        .flat_map(|path| ["ls", "info", "check"].map(|verb| run([&verb as &dyn AsRef<OsStr>, &path])))
        .collect();
    let pid = writer.id().to_string();
    writer.kill().unwrap();
    writer.wait().unwrap();
    for ended in read {
        assert!(ended.err.contains(&pid) && ended.err.contains("writes to"), "{}", ended.err);
    }
}
