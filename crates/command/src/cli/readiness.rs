//! Reports that the daemon is ready, and that it stops: to a file descriptor, and to systemd.
//!
//! Nothing depends on it: a report that fails is noted, and the daemon continues.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use spindle_engine::{inherited, write_at_once};

use super::output::note;

/// Where systemd waits for it.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The descriptor of `--ready-fd`, if it is open.
pub(super) struct ReadyFd {
    number: u32,
    descriptor: Option<OwnedFd>,
}

impl ReadyFd {
    /// Taken before the daemon opens files, which could get the number.
    pub(super) fn take(number: u32) -> ReadyFd {
        ReadyFd { number, descriptor: inherited(number).ok() }
    }

    /// Through the descriptor itself, as a file has to be written where the starter's position is, or at its end.
    fn write_line(&self) -> Result<(), String> {
        let descriptor = self.descriptor.as_ref().ok_or("it is not open")?;
        write_at_once(descriptor, "ready\n").map_err(|error| error.to_string())
    }
}

/// Everything is served from now on.
pub(super) fn ready(descriptor: Option<ReadyFd>) {
    if let Some(descriptor) = descriptor
        && let Err(why) = descriptor.write_line()
    {
        let number = descriptor.number;
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
