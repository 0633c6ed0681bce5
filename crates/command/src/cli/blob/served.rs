//! Finds the program that writes to an image now, and how to ask it: a daemon that serves the store has more
//! information than the image.
//!
//! The engine finds the process by its lock, `/proc` lists its sockets; the one that answers JSON is the RPC
//! socket. Not promised: anything about programs that take no lock, or that are not visible.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spindle_block::{File, FileOptions, OpenError};
use spindle_engine::write_lock;

use super::image::ImageFile;
use super::limit::refuse_limited;
use crate::cli::failure::{Failure, shown};
use crate::cli::output::note;
use crate::cli::shell;
use crate::cli::text::printable;

/// How long a socket may take to answer before the next one is tried.
const PATIENCE: Duration = Duration::from_millis(300);

/// The flags of a listening socket in `/proc/net/unix`.
const LISTENS: &str = "00010000";

/// Prints a note if another program writes to the image that is about to be read.
pub(super) fn note_writer(image: &ImageFile) {
    let Some(lock) = write_lock(image.file()) else { return };
    let path = shown(image.path());
    note(&match lock.pid.map(|pid| (pid, rpc_socket(pid))) {
        Some((pid, Some(socket))) => format!(
            "{path} is served by process {pid}{}: the image may be out of date; ask it: {}",
            program(pid),
            question(&socket)
        ),
        Some((pid, None)) => format!(
            "process {pid}{} writes to {path}: what is shown may be in between two states",
            program(pid)
        ),
        None => format!("another process writes to {path}: what is shown may be in between two states"),
    });
}

/// Opens and locks an image for writing, unless a limit would cut writes off. If a daemon serves it, the error names
/// the command that asks the daemon.
pub(super) async fn open_for_writing(path: &Path) -> Result<Arc<File>, Failure> {
    let opened = File::open(FileOptions::new(path).writable(true).name(shown(path))).await;
    let device = opened.map_err(|error| {
        let is_busy = matches!(error, OpenError::Busy { .. });
        let socket = || rpc_socket(write_lock(ImageFile::open(path).ok()?.file())?.pid?);
        match (Failure::from(error), is_busy.then(socket).flatten()) {
            (Failure::Open(text), Some(socket)) => {
                Failure::Open(format!("{text}, or ask it: {}", question(&socket)))
            }
            (failure, _) => failure,
        }
    })?;
    if !device.info().block_device {
        refuse_limited(path, device.info().size)?;
    }
    Ok(device)
}

/// The command that lists the volumes of a daemon.
fn question(socket: &Path) -> String {
    format!("spindle rpc -s {} bdev_lvol_get_lvols", shell::typed(socket))
}

/// The name of a process, in brackets; empty if it is not visible.
fn program(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.is_empty() { name } else { format!(" ({})", printable(name.trim_end().as_bytes())) }
}

/// The socket at which a process answers JSON-RPC.
fn rpc_socket(pid: u32) -> Option<PathBuf> {
    let own = sockets(pid);
    let known = fs::read_to_string("/proc/net/unix").ok()?;
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let mut listening = known.lines().filter_map(listener).filter(|(inode, _)| own.contains(inode));
    listening.find_map(|(_, path)| Some(folder.join(path)).filter(|path| answers_json(path)))
}

/// The sockets that a process has open, by inode.
fn sockets(pid: u32) -> Vec<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    let inode = |link: PathBuf| {
        let text = std::str::from_utf8(link.as_os_str().as_bytes()).ok()?;
        text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    links.filter_map(inode).collect()
}

/// Inode and path of a listening socket, from a line of `/proc/net/unix`: `number: references protocol flags
/// type state inode path`.
fn listener(line: &str) -> Option<(u64, &str)> {
    let mut rest = line;
    let mut field = || {
        let (field, behind) = rest.trim_start().split_once(' ')?;
        rest = behind;
        Some(field)
    };
    // The first three are skipped, then come the type and the state.
    let listens = (0..4).map_while(|_| field()).nth(3)? == LISTENS;
    let inode = (0..3).map_while(|_| field()).nth(2)?.parse().ok()?;
    let path = Some(rest).filter(|path| listens && !path.is_empty() && !path.starts_with('@'))?;
    Some((inode, path))
}

fn answers_json(path: &Path) -> bool {
    let asked = || -> std::io::Result<u8> {
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.write_all(br#"{"jsonrpc":"2.0","id":1,"method":"spdk_get_version"}"#)?;
        let mut first = [0];
        socket.read_exact(&mut first)?;
        Ok(first[0])
    };
    asked().is_ok_and(|first| first == b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_listen_at_a_path_are_found() {
        let line = "ffff9a: 00000002 00000000 00010000 0001 01 98765 /run/a path.sock";
        assert_eq!(listener(line), Some((98765, "/run/a path.sock")));
        let padded = "ffff9a: 00000002 00000000 00010000 0001 01   765 rpc.sock";
        assert_eq!(listener(padded), Some((765, "rpc.sock")));
        for other in [
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "ffff9a: 00000002 00000000 00010000 0001 01 98765 @abstract",
            "ffff9a: 00000003 00000000 00000000 0001 03 98765 /run/a.sock",
            "ffff9a: 00000002 00000000 00010000 0001 01 98765",
            "",
        ] {
            assert_eq!(listener(other), None, "{other}");
        }
    }
}
