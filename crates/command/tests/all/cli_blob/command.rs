//! The command line itself: exit codes, closed pipes, wrong arguments.

use super::support::{HELLO, Image, blob, command, on, spindle};
use std::io::Read;
use std::process::Stdio;

#[test]
fn no_arguments_and_help_are_no_failure() {
    for arguments in
        [&[][..], &["--help"], &["blob", "--help"], &["blob", "export", "--help"], &["--version"]]
    {
        let ended = spindle(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}");
        assert!(ended.text().contains("spindle") && ended.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let image = Image::new(&HELLO);
    let path = image.path().to_str().unwrap();
    for arguments in [
        &["nonsense"][..],
        &["blob"],
        &["blob", "ls"],
        &["blob", "export", path],
        &["blob", "ls", path, "--esnap", "no-file"],
        &["blob", "ls", path, "--esnap", "u=/dev/null", "--nonsense"],
    ] {
        let ended = spindle(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.err);
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{arguments:?}");
    }
    let esnap = format!("u={path}");
    let twice = ["blob", "ls", path, "--esnap", &esnap, "--esnap", &esnap.replace("u=", "U=")];
    spindle(twice).fails(2, &["given twice"]);
}

#[test]
fn an_image_that_is_not_there_or_no_file_is_named() {
    blob(["ls", "/nonexistent/store.img"]).fails(1, &["/nonexistent/store.img", "cannot be opened"]);
    blob(["info", "/"]).fails(1, &["folder", "image file"]);
    blob(["dump", "/dev/null"]).fails(1, &["/dev/null", "block device"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let image = Image::fixture("many");
    for verb in [&["ls", "--json"][..], &["dump"], &["dump", "--json"], &["export"]] {
        let mut arguments = vec!["blob".as_ref(), verb[0].as_ref(), image.path().as_os_str()];
        arguments.extend(verb[1..].iter().map(std::ffi::OsStr::new));
        if verb[0] == "export" {
            arguments.extend(["fragB", "-"].map(std::ffi::OsStr::new));
        }
        let mut child =
            command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut some = [0; 10];
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut some).unwrap();
        drop(out);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{verb:?}: {}", ended.status);
        assert!(ended.stderr.is_empty(), "{verb:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[test]
fn a_full_disk_under_standard_output_is_a_failure() {
    let image = Image::new(&HELLO);
    for arguments in [&["ls"][..], &["export", "alpha", "-"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut all = vec!["blob".as_ref(), arguments[0].as_ref(), image.path().as_os_str()];
        all.extend(arguments[1..].iter().map(std::ffi::OsStr::new));
        let ended = command(all).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("standard output"), "{arguments:?}");
    }
}

#[test]
fn help_that_cannot_be_written_is_a_failure_too() {
    for arguments in [&["--help"][..], &["--version"], &["blob", "ls", "--help"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = command(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("standard output"), "{arguments:?}");
    }
}

#[test]
fn cores_that_cannot_be_used_are_wrong_usage_that_names_the_option() {
    for verb in [&["serve", "--no-rpc-server"][..], &["perf", "bdev", "--on", "null"]] {
        for cores in ["zz", "[1023]"] {
            let ended = command(verb).args(["-m", cores]).stderr(Stdio::piped()).output().unwrap();
            assert_eq!(ended.status.code(), Some(2), "{verb:?} {cores}");
            assert!(String::from_utf8_lossy(&ended.stderr).contains(&format!("-m {cores}: ")), "{verb:?}");
        }
    }
}

#[test]
fn a_dump_tells_every_kind_of_page_and_where_it_lies() {
    let image = Image::new(&HELLO);
    let dump = on(&image, "dump", &[]);
    assert_eq!(dump.code, 0, "{}", dump.err);
    for words in [
        "super block at byte 0: crc ok",
        "bits set",
        "metadata page 0 at byte 16384: root of blob 0x100000000",
        "xattr name = \"alpha\" and 1 NUL",
        "internal xattr SNAP = 0x",
        "extent table of 4 clusters: pages ",
        "extent page from cluster 0: clusters ",
        "extents: clusters ",
        "(thin, ",
        "zeroes",
    ] {
        assert!(dump.text().contains(words), "{words:?} is missing in:\n{}", dump.text());
    }
}
