//! The kernel keeps pages of each loop device for itself: what a command reads of a device is nevertheless what lies on
//! its file, not what was there when the device was read before.

use super::loops::Loop;
use super::support::{Ended, Image, blob, command, on, unpack};
use super::writing::{contents, done, import_file, in_order, named, pattern, store};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// `spindle blob VERB DEVICE`, then these arguments; it must work.
#[track_caller]
fn on_device(verb: &str, device: &Loop, rest: &[&OsStr]) -> Ended {
    let start = [verb.as_ref(), device.path().as_os_str()];
    let ended = blob(start.into_iter().chain(rest.iter().copied()));
    assert_eq!(ended.code, 0, "{verb} {rest:?}: {}", ended.err);
    ended
}

/// Imports these bytes into the file.
#[track_caller]
fn import(image: &Image, rest: &[&str], bytes: &[u8]) {
    let ended = import_file(image, &[rest, &["FILE"]].concat(), bytes);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn what_was_written_to_a_file_since_a_device_was_read_is_kept_by_the_commands_that_write_to_the_device() {
    let image = store(64);
    let Some(lower) = Loop::over(image.path()) else { return };
    // It holds the lower one open, which so keeps its pages.
    let upper = Loop::over(lower.path()).unwrap();
    on_device("ls", &upper, &[]);
    let [first, second] = [pattern(1, 704 << 10), pattern(2, 3 << 20)];
    import(&image, &["--create", "--name", "first"], &first);
    let input = image.beside("second");
    fs::write(&input, &second).unwrap();
    let named = ["--create", "--name", "second"].map(OsStr::new);
    on_device("import", &upper, &[&named[..], &[input.as_os_str()]].concat());
    in_order(&image);
    for (name, bytes) in [("first", first), ("second", second)] {
        assert!(contents(&image, name) == bytes, "{name}");
    }
}

#[test]
fn what_was_written_to_a_file_since_a_device_was_read_is_kept_by_a_repair_through_the_device() {
    let image = Image::new(&unpack("steps/2-thick"));
    let Some(device) = Loop::over(image.path()) else { return };
    // The kernel keeps its pages as long as it is open.
    let _open = File::open(device.path()).unwrap();
    blob(["check".as_ref(), device.path().as_os_str()]);
    let uuid = "uuid=11111111-2222-4333-8444-555555555501";
    done(&image, "create", &["--size", "1M", "--name", "made", "--xattr", uuid]);
    let before = on(&image, "check", &["--json"]).out;
    let undo = image.beside("undo");
    let repair = ["--repair".as_ref(), "--undo".as_ref(), undo.as_os_str()];
    blob(["check".as_ref(), device.path().as_os_str()].into_iter().chain(repair));
    named(&image, "made");
    assert_eq!(
        on(&image, "check", &["--json"]).out,
        before,
        "what SPDK left of an lvolstore, and nothing more"
    );
}

#[test]
fn what_is_shown_of_a_device_is_what_its_file_holds_now() {
    let image = store(32);
    let Some(lower) = Loop::over(image.path()) else { return };
    let upper = Loop::over(lower.path()).unwrap();
    let _open = File::open(upper.path()).unwrap();
    import(&image, &["--create", "--name", "a"], &pattern(1, 1 << 20));
    for seed in 2..4 {
        for device in [&lower, &upper] {
            on_device("export", device, &["a".as_ref(), "-".as_ref()]);
        }
        let bytes = pattern(seed, 1 << 20);
        import(&image, &["a"], &bytes);
        let name = format!("made-{seed}");
        done(&image, "create", &["--size", "1M", "--name", &name]);
        for device in [&lower, &upper] {
            let exported = on_device("export", device, &["a".as_ref(), "-".as_ref()]);
            assert!(exported.out == bytes, "export from {:?}", device.path());
            let listed = on_device("ls", device, &["--json".as_ref()]).json();
            let names: Vec<_> = listed.as_array().unwrap().iter().map(|blob| blob["name"].clone()).collect();
            assert!(names.iter().any(|there| *there == *name), "{names:?} of {:?}", device.path());
        }
    }
}

#[test]
fn the_undo_file_of_a_device_is_in_the_current_folder_and_not_beside_its_node() {
    let image = Image::new(&unpack("dirty"));
    let dirty = image.sha256();
    let Some(device) = Loop::over(image.path()) else { return };
    let folder = image.beside("current");
    fs::create_dir(&folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    let words = ["blob", "check"].map(OsStr::new).into_iter().chain([device.path().as_os_str()]);
    let mut check = command(words.chain([OsStr::new("--repair")]));
    let ended = check.current_dir(&folder).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{said}");
    let undo = |folder: &Path| -> PathBuf {
        let mut name = device.path().file_name().unwrap().to_owned();
        name.push(".undo");
        folder.join(name)
    };
    assert!(!undo(Path::new("/dev")).exists(), "{said}");
    let undo = undo(&folder);
    assert!(said.contains(undo.to_str().unwrap()), "{said}");
    on_device("undo", &device, &[undo.as_os_str()]);
    assert_eq!(image.sha256(), dirty);
}
