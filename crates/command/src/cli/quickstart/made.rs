//! What a run made in the file system before it had an image: taken back if it ends without one.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders, innermost first, and the `.gitignore` in the first of them.
#[derive(Clone, Default)]
pub(super) struct Made {
    folders: Vec<PathBuf>,
    ignore: Option<PathBuf>,
}

impl Made {
    /// Makes a folder, and those above it, if they are not there.
    pub(super) fn folder(&mut self, path: &Path) -> io::Result<()> {
        let missing = |path: &&Path| {
            let found = fs::symlink_metadata(path);
            !path.as_os_str().is_empty() && found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        self.folders = path.ancestors().take_while(missing).map(Path::to_owned).collect();
        fs::create_dir_all(path)
    }

    /// Writes a `.gitignore`.
    pub(super) fn ignore(&mut self, path: &Path, contents: &str) -> io::Result<()> {
        // Noted first: one that cannot be written whole is there, too.
        self.ignore = Some(path.to_owned());
        fs::write(path, contents)
    }

    /// Removes it, as far as nothing else has come into the folders.
    pub(super) fn take_back(&self) {
        if let Some(ignore) = &self.ignore
            && is_alone(ignore)
        {
            // If this fails the next run finds what a cut-off one leaves.
            let _ = fs::remove_file(ignore);
        }
        for folder in &self.folders {
            // One that is not empty stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// True if a folder holds this file and nothing else.
fn is_alone(file: &Path) -> bool {
    let entries = file.parent().map(fs::read_dir).and_then(Result::ok);
    let is_it = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == name_of(file));
    entries.is_some_and(|mut entries| entries.all(is_it))
}

fn name_of(file: &Path) -> &OsStr {
    file.file_name().unwrap_or_default()
}
