//! Reports that the daemon is ready, and that it stops: to a file descriptor, and to systemd.
//!
//! Nothing depends on it: a report that fails is noted, and the daemon continues.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::output::note;

/// Where systemd waits for it.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Everything is served from now on.
pub(super) fn ready(descriptor: Option<u32>) {
    if let Some(number) = descriptor
        && let Err(error) = write_line(number)
    {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "it is not open".to_owned(),
            _ => error.to_string(),
        };
        note(&format!("serving, but --ready-fd {number} could not be written: {why}"));
    }
    if let Err(error) = notify("READY=1") {
        note(&format!("serving, but {NOTIFY_SOCKET} was not told: {error}"));
    }
}

/// The orderly stop has begun.
pub(super) fn stopping() {
    // Without effect on the stop, and systemd waits for the process.
    let _ = notify("STOPPING=1");
}

/// The descriptor is opened by its path in /proc, as safe code cannot take one by number; this works for a pipe or
/// a file, not for a socket.
fn write_line(number: u32) -> io::Result<()> {
    let mut opened = File::options().write(true).open(format!("/proc/self/fd/{number}"))?;
    opened.write_all(b"ready\n")
}

fn notify(state: &str) -> io::Result<()> {
    let Some(place) = env::var_os(NOTIFY_SOCKET).filter(|place| !place.is_empty()) else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address(&place)?)?;
    Ok(())
}

/// A path, or `@` and a name in the abstract namespace.
fn address(place: &OsStr) -> io::Result<SocketAddr> {
    match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(place),
    }
}
