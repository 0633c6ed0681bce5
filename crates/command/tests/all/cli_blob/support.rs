//! What the tests share: unpacked fixtures, their manifests, and running the binary.

use ring::digest;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

/// Ids in every image begin here.
pub const FIRST_ID: u64 = 0x1_0000_0000;

/// The folder of the fixtures.
fn fixtures() -> PathBuf {
    crate::root().join("tests/fixtures")
}

/// An image in a temporary folder, which is removed with it.
pub struct Image {
    folder: TempDir,
    path: PathBuf,
}

impl Image {
    /// An image with these contents.
    pub fn new(bytes: &[u8]) -> Image {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("store.img");
        write_sparse(&path, bytes);
        Image { folder, path }
    }

    /// An unpacked fixture, read-only for all users.
    pub fn fixture(name: &str) -> Image {
        let image = Image::new(&unpack(name));
        fs::set_permissions(&image.path, fs::Permissions::from_mode(0o444)).unwrap();
        image
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path beside the image.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn sha256(&self) -> String {
        sha256(&fs::read(&self.path).unwrap())
    }
}

/// The bytes of a fixture's image.
pub fn unpack(name: &str) -> Vec<u8> {
    let packed = File::open(fixtures().join(format!("{name}.img.zst"))).unwrap();
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (block, at) in bytes.chunks(64 << 10).zip((0..).step_by(64 << 10)) {
        if block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, at).unwrap();
        }
    }
}

/// The small fixture, which many tests change a copy of.
pub static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| unpack("hello"));

/// The manifest of a fixture.
pub fn manifest(name: &str) -> Value {
    let text = fs::read(fixtures().join(format!("{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a run of the binary ended.
pub struct Ended {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ended {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text output is UTF-8")
    }

    /// The JSON output of a run that must have worked.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_slice(&self.out).expect("JSON output is JSON")
    }

    /// Asserts that the run failed with one sentence that says all of this.
    #[track_caller]
    pub fn fails(&self, code: i32, saying: &[&str]) {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.out.is_empty(), "nothing on standard output");
        assert_eq!(self.err.lines().count(), 1, "one sentence: {}", self.err);
        for word in saying {
            assert!(self.err.contains(word), "{word:?} is missing in: {}", self.err);
        }
    }
}

/// A run of `spindle blob` with these arguments.
pub fn blob<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    spindle(std::iter::once("blob".into()).chain(arguments.into_iter().map(|a| a.as_ref().to_owned())))
}

/// A run of `spindle` with these arguments.
pub fn spindle<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    let ended = command(arguments).output().unwrap();
    let code = ended.status.code().unwrap_or_else(|| panic!("killed: {}", ended.status));
    Ended { code, out: ended.stdout, err: String::from_utf8(ended.stderr).unwrap() }
}

/// A command that is not started yet, without a terminal.
pub fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spindle"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// `spindle blob COMMAND IMAGE`, then these arguments.
pub fn on(image: &Image, verb: &str, rest: &[&str]) -> Ended {
    let arguments = [verb.as_ref(), image.path().as_os_str()];
    blob(arguments.into_iter().chain(rest.iter().map(OsStr::new)))
}

/// Changes bytes of a metadata page of an image and puts its CRC right again. Pages are those of the
/// fixtures with 1 MiB clusters: 4096 bytes each.
pub fn change_page(image: &mut [u8], page: usize, change: impl FnOnce(&mut [u8])) {
    let bytes = page_of(image, page);
    change(bytes);
    let crc = spindle_format::crc::crc32c(&bytes[..4092]);
    (&mut bytes[4092..]).write_all(&crc.to_le_bytes()).unwrap();
}

/// The bytes of a metadata page.
pub fn page_of(image: &mut [u8], page: usize) -> &mut [u8] {
    let md_start = u32::from_le_bytes(image[48..52].try_into().unwrap()) as usize;
    let at = (md_start + page) * 4096;
    &mut image[at..at + 4096]
}

/// Replaces the one occurrence of some bytes by as many others.
pub fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len());
    let mut found = (0..=bytes.len() - old.len()).filter(|&at| &bytes[at..at + old.len()] == old);
    let at = found.next().expect("the bytes are there");
    assert_eq!(found.next(), None, "the bytes are there once");
    bytes[at..at + new.len()].copy_from_slice(new);
}
