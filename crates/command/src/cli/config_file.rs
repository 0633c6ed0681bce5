//! Reads the file of a configuration: a regular file or a pipe of bounded size.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use spindle_control::ConfigFile;

use super::failure::{Failure, shown, without_number};
use super::file_kind::described;

/// Reads a configuration. Waits for a pipe's writer if there is one.
pub(super) fn read(path: &Path, ignore_errors: bool) -> Result<ConfigFile, Failure> {
    let text = text(path).map_err(|why| {
        let path = shown(path);
        Failure::Refused(format!(
            "{path}: the configuration cannot be read: {why}; name a file as save_config writes it"
        ))
    })?;
    Ok(ConfigFile { name: shown(path), text, ignore_errors })
}

fn text(path: &Path) -> Result<String, String> {
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => without_number(&error),
    };
    let file = open(path).map_err(said)?;
    let kind = file.metadata().map_err(said)?.file_type();
    let is_pipe = std::os::unix::fs::FileTypeExt::is_fifo(&kind);
    if !kind.is_file() && !is_pipe {
        return Err(format!("it is {}, neither a regular file nor a pipe", described(kind)));
    }
    let mut bytes = Vec::new();
    file.take(ConfigFile::MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() > ConfigFile::MOST_BYTES {
        return Err(format!("it has more than {} MiB", ConfigFile::MOST_BYTES >> 20));
    }
    if is_pipe && bytes.is_empty() {
        return Err("nothing came through the pipe: its writer must be there first".to_owned());
    }
    String::from_utf8(bytes)
        .map_err(|error| format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()))
}

/// Opens a file without waiting for the writer of a FIFO: without one a read finds the end.
fn open(path: &Path) -> io::Result<File> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(File::from(file))
}
