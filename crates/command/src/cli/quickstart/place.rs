//! The folder of a quickstart: its files, and in which state an earlier run left them.
//!
//! A first run makes the store and the volume in a file of another name, which becomes the image when both are in it. So
//! the image is whole whenever it is there, and a first run that was cut off leaves only what the next one removes.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use spindle_engine::Address;
use spindle_format::{PAGE_SIZE, SuperBlock};

use super::made::Made;
use crate::cli::failure::{Failure, shown, without_number};
use crate::cli::file_kind::described;

const IMAGE_BYTES: u64 = 10 << 30;

/// The longest path that a socket can have.
const SOCKET_PATH: usize = 107;

/// The image, and what becomes it.
const IMAGES: [&str; 2] = ["disk.img", "disk.img.unfinished"];

/// The sockets, and the files that lock them.
const SOCKETS: [&str; 4] = ["spdk.sock", "spdk.sock.lock", "nbd.sock", "nbd.sock.lock"];

const GIT_IGNORE: &str = ".gitignore";

/// What to do about an image that a quickstart cannot use.
const REMEDY: &str = "move it away, or name another folder: spindle quickstart FOLDER";

/// The folder and its contents.
#[derive(Clone)]
pub(super) struct Place {
    /// As typed.
    pub(super) typed: PathBuf,
    absolute: PathBuf,
    made: Made,
}

/// The state in which the image was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none yet.
    New,
    Clean,
    /// Clean, as the run that did not end in order had changed nothing.
    CleanAfterKill,
    Dirty,
}

impl Place {
    /// Makes the folder if it is not there.
    pub(super) fn new(typed: PathBuf) -> Result<Place, Failure> {
        let mut made = Made::default();
        let prepared = Place::prepared(typed, &mut made);
        match prepared {
            Ok((typed, absolute)) => Ok(Place { typed, absolute, made }),
            Err(refusal) => {
                made.take_back();
                Err(refusal)
            }
        }
    }

    /// Makes the folder; its path as typed and whole.
    fn prepared(typed: PathBuf, made: &mut Made) -> Result<(PathBuf, PathBuf), Failure> {
        made.folder(&typed).map_err(|error| unusable(&typed, "made", &error))?;
        let absolute = typed.canonicalize().map_err(|error| Failure::file(&typed, "found", error))?;
        for socket in ["spdk.sock", "nbd.sock"] {
            let path = absolute.join(socket);
            // The lock file beside it may have a longer name.
            if path.as_os_str().len() > SOCKET_PATH {
                return Err(Failure::Refused(format!(
                    "{} has {} bytes, and a socket's path at most {SOCKET_PATH}: run it in another folder, or name one: spindle quickstart FOLDER",
                    shown(&path),
                    path.as_os_str().len()
                )));
            }
        }
        hide_from_git(&absolute, made)?;
        Ok((typed, absolute))
    }

    /// Removes what this run made before it had an image, unless it has one now.
    pub(super) fn take_back(&self) {
        self.made.take_back();
    }

    pub(super) fn absolute(&self) -> &Path {
        &self.absolute
    }

    pub(super) fn image(&self) -> PathBuf {
        self.absolute.join("disk.img")
    }

    /// The image while the store and the volume are made in it.
    fn unfinished(&self) -> PathBuf {
        self.absolute.join("disk.img.unfinished")
    }

    pub(super) fn rpc_socket(&self) -> PathBuf {
        self.absolute.join("spdk.sock")
    }

    pub(super) fn nbd_address(&self) -> Address {
        Address::Unix(self.absolute.join("nbd.sock"))
    }

    /// Whether an earlier run did not end in order: its sockets are there still. Asked before this run makes its own.
    pub(super) fn was_killed(&self) -> bool {
        SOCKETS.iter().any(|name| fs::symlink_metadata(self.absolute.join(name)).is_ok())
    }

    /// The state of the image. The caller owns the RPC socket of the folder, so that no other quickstart makes one.
    pub(super) fn found(&self) -> Result<Found, Failure> {
        let path = self.image();
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        // Checked before it is opened: opening a FIFO would wait for its other end.
        let metadata = match (fs::metadata(&path), fs::symlink_metadata(&path)) {
            (Ok(metadata), _) => metadata,
            (Err(error), Err(_)) if is_missing(&error) => return Ok(Found::New),
            (Err(error), Ok(_)) if is_missing(&error) => {
                return Err(not_ours(&path, "is a symbolic link to a file that is missing"));
            }
            (Err(error), _) => return Err(Failure::file(&path, "opened", error)),
        };
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(not_ours(&path, &format!("is {}, not an image file", described(kind))));
        }
        if kind.is_file() && metadata.len() == 0 {
            return Err(not_ours(&path, "is empty"));
        }
        state(&path)
    }

    /// A new file for the image, under the other name; one that an earlier run left is removed.
    pub(super) fn begin(&self) -> Result<PathBuf, Failure> {
        let path = self.unfinished();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unusable(&path, "removed", &error));
            }
            _ => {}
        }
        let made = fs::File::create_new(&path).and_then(|image| image.set_len(IMAGE_BYTES));
        made.map_err(|error| {
            self.give_up();
            unusable(&path, "made", &error)
        })?;
        Ok(path)
    }

    /// Removes that file after a failure: it holds disk space.
    pub(super) fn give_up(&self) {
        // If this fails, the next run removes it.
        let _ = fs::remove_file(self.unfinished());
    }

    /// Gives the whole image its name, durably: otherwise a power cut might bring back the other name after the user wrote to
    /// the volume, and the next run would remove it. Waits for the disk.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        let (from, image) = (self.unfinished(), self.image());
        fs::rename(&from, &image).map_err(|error| Failure::file(&image, "made", error))?;
        let folder = fs::File::open(&self.absolute).and_then(|folder| folder.sync_all());
        folder.map_err(|error| Failure::file(&self.absolute, "written", error))
    }
}

/// Writes a `.gitignore` for all in the folder, if that is what runs make. One without contents is what a run left that was
/// cut off.
fn hide_from_git(folder: &Path, made: &mut Made) -> Result<(), Failure> {
    let ignore = folder.join(GIT_IGNORE);
    let is_written = fs::symlink_metadata(&ignore).is_ok_and(|there| !there.is_file() || there.len() > 0);
    // It would hide files of the user.
    if is_written || !holds_only_files_of_runs(folder) {
        return Ok(());
    }
    made.ignore(&ignore, "*\n").map_err(|error| unusable(&ignore, "written", &error))
}

/// True for an empty folder, too.
fn holds_only_files_of_runs(folder: &Path) -> bool {
    let of_runs = |entry: io::Result<fs::DirEntry>| {
        let mut names = IMAGES.iter().chain(&SOCKETS).chain([&GIT_IGNORE]);
        entry.is_ok_and(|entry| names.any(|name| entry.file_name() == *name))
    };
    fs::read_dir(folder).is_ok_and(|mut entries| entries.all(of_runs))
}

/// Whether the store of an image was left clean.
fn state(path: &Path) -> Result<Found, Failure> {
    let mut page = [0; PAGE_SIZE];
    let image = fs::File::open(path).map_err(|error| Failure::file(path, "opened", error))?;
    match io::Read::read_exact(&mut &image, &mut page) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(not_ours(path, &format!("has fewer than {PAGE_SIZE} bytes, too few for a store")));
        }
        read => read.map_err(|error| Failure::file(path, "read", error))?,
    }
    match SuperBlock::parse(&page) {
        Ok(block) if block.clean => Ok(Found::Clean),
        Ok(_) => Ok(Found::Dirty),
        Err(error) => Err(not_ours(
            path,
            &format!("is there and holds no store that can be read: {error}; see 'spindle blob check'"),
        )),
    }
}

/// A file in the place of the image that no quickstart made, or that was damaged since. It is left alone.
pub(super) fn not_ours(path: &Path, what: &str) -> Failure {
    Failure::Refused(format!("{} {what}; {REMEDY}", shown(path)))
}

/// A folder or file in which nothing can be made.
fn unusable(path: &Path, action: &str, error: &io::Error) -> Failure {
    let why = without_number(error);
    Failure::Refused(format!(
        "{} cannot be {action}: {why}; run it in a folder that you may write to, or name one: spindle quickstart FOLDER",
        shown(path)
    ))
}
