//! What the tests of the writing commands share: new stores, patterns, and checks of the result.

use super::support::{Ended, Image, blob, command, on};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// A store on a file of so many MiB with clusters of 64 KiB.
pub fn store(mebibytes: u64) -> Image {
    let image = Image::new(&vec![0; (mebibytes << 20) as usize]);
    let made = on(&image, "init", &["--cluster-size", "64K"]);
    assert_eq!(made.code, 0, "{}", made.err);
    image
}

/// A run that must work; its standard output.
#[track_caller]
pub fn done(image: &Image, verb: &str, rest: &[&str]) -> String {
    let ended = on(image, verb, rest);
    assert_eq!(ended.code, 0, "{verb} {rest:?}: {}", ended.err);
    ended.text().to_owned()
}

/// The id that a run which must work prints.
#[track_caller]
pub fn id(image: &Image, verb: &str, rest: &[&str]) -> String {
    let printed = done(image, verb, rest);
    assert!(printed.starts_with("0x1") && printed.ends_with('\n'), "{printed:?}");
    printed.trim_end().to_owned()
}

/// The blobs, as JSON.
#[track_caller]
pub fn blobs(image: &Image) -> Vec<Value> {
    on(image, "ls", &["--json"]).json().as_array().unwrap().clone()
}

/// A blob by its name, as JSON.
#[track_caller]
pub fn named(image: &Image, name: &str) -> Value {
    blobs(image).into_iter().find(|blob| blob["name"] == name).unwrap_or_else(|| panic!("no blob {name}"))
}

/// What a blob holds.
#[track_caller]
pub fn contents(image: &Image, name: &str) -> Vec<u8> {
    let exported = on(image, "export", &[name, "-"]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    exported.out
}

/// Bytes that differ from each other and from those of another seed.
pub fn pattern(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        // Never zero, so that data is told from padding.
        (state >> 24) as u8 | 1
    };
    std::iter::repeat_with(byte).take(len).collect()
}

/// The store is clean, and the independent reader finds nothing wrong with it.
#[track_caller]
pub fn in_order(image: &Image) {
    let info = on(image, "info", &["--json"]).json();
    assert_eq!((&info["clean"], &info["recovered"]), (&Value::Bool(true), &Value::Bool(false)));
    let seen = read(image.path());
    assert_eq!(seen["accepted"], true, "{seen}");
    assert_eq!(seen["findings"], serde_json::json!([]), "{seen}");
    assert_eq!(seen["free_clusters"], info["free_clusters"]);
}

/// What the Python reader says of an image.
fn read(image: &Path) -> Value {
    let reader = crate::root().join("tests/reader");
    let run = std::process::Command::new("python3").arg(reader).arg(image).output();
    let run = run.expect("python3 is there: tests/run installs it");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

/// An import of these bytes through standard input.
pub fn import_stream(image: &Image, rest: &[&str], bytes: &[u8]) -> Ended {
    let mut arguments = vec!["blob".as_ref(), "import".as_ref(), image.path().as_os_str()];
    arguments.extend(rest.iter().map(std::ffi::OsStr::new));
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // A command that fails before it has read everything closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    Ended { code: ended.status.code().unwrap(), out: ended.stdout, err }
}

/// An import of a file with these contents.
pub fn import_file(image: &Image, rest: &[&str], bytes: &[u8]) -> Ended {
    let file = image.beside("input");
    fs::write(&file, bytes).unwrap();
    let start = ["import".as_ref(), image.path().as_os_str()];
    let rest = rest.iter().map(|argument| match *argument {
        "FILE" => file.as_os_str(),
        other => std::ffi::OsStr::new(other),
    });
    blob(start.into_iter().chain(rest))
}
