//! Creates sockets: streams over Unix paths and TCP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind, getpeername, getsockname,
    listen as listen_on, socket_with, socketpair, sockopt,
};

use crate::engine_id::EngineId;
use crate::handle::{Body, ListenerInner, SocketInner};
use crate::owned::reworded::reworded;
use crate::{Address, Listener, Peer, Shutdown, Socket};

impl Socket {
    pub(crate) fn from_fd(fd: OwnedFd, engine_id: &EngineId) -> Socket {
        Socket(Arc::new(SocketInner::new(engine_id.clone(), Body::Os(fd))))
    }

    /// The kernel's descriptor of a socket, after checking its engine.
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        os_fd(&self.0.body)
    }

    /// The other end. Asks the system each time, which does not block.
    pub fn peer(&self) -> Peer {
        let Body::Os(fd) = &self.0.body else { return Peer::Simulated };
        match getpeername(fd) {
            Ok(Some(address)) if address.address_family() == AddressFamily::UNIX => process_at(fd.as_fd()),
            Ok(Some(address)) => SocketAddr::try_from(address).map_or(Peer::Unknown, Peer::Tcp),
            _ => Peer::Unknown,
        }
    }
}

impl Socket {
    /// Makes the system probe a TCP peer that has been silent for `idle`, once in `idle` and at most three
    /// times; a receive from a dead peer then ends with an error. What is sent to a peer that takes nothing of it
    /// for as long, four times `idle`, fails likewise (tcp(7), TCP_USER_TIMEOUT), where the system alone would
    /// try for a quarter of an hour. No effect on sockets other than TCP's. Does not block.
    ///
    /// # Errors
    /// The system refuses.
    pub fn keep_alive(&self, idle: Duration) -> io::Result<()> {
        let Body::Os(fd) = &self.0.body else { return Ok(()) };
        if !matches!(self.peer(), Peer::Tcp(_)) {
            return Ok(());
        }
        sockopt::set_tcp_keepidle(fd, idle)?;
        sockopt::set_tcp_keepintvl(fd, idle)?;
        sockopt::set_tcp_keepcnt(fd, 3)?;
        let gone = u32::try_from(idle.as_millis().saturating_mul(4)).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(fd, gone)?;
        Ok(sockopt::set_socket_keepalive(fd, true)?)
    }
}

fn process_at(fd: BorrowedFd<'_>) -> Peer {
    match sockopt::socket_peercred(fd) {
        Ok(found) => Peer::Process { pid: found.pid.as_raw_pid().unsigned_abs(), uid: found.uid.as_raw() },
        Err(_) => Peer::Unknown,
    }
}

impl Listener {
    /// The kernel's descriptor of a listener, after checking its engine.
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        os_fd(&self.0.body)
    }
}

fn os_fd(body: &Body) -> io::Result<BorrowedFd<'_>> {
    match body {
        Body::Os(fd) => Ok(fd.as_fd()),
        Body::Sim(_) => Err(Errno::BADF.into()),
    }
}

/// io_uring waits inside the kernel and needs blocking sockets; epoll needs non-blocking ones.
pub(crate) fn flags(blocking: bool) -> SocketFlags {
    if blocking { SocketFlags::CLOEXEC } else { SocketFlags::CLOEXEC | SocketFlags::NONBLOCK }
}

/// An unconnected stream socket fit for `address`, and the address as the kernel takes it.
pub(crate) fn stream_for(address: &Address, blocking: bool) -> io::Result<(OwnedFd, SocketAddrAny)> {
    let (family, kernel) = match address {
        Address::Unix(path) => (AddressFamily::UNIX, SocketAddrAny::from(unix(path)?)),
        Address::Tcp(tcp) if tcp.is_ipv4() => (AddressFamily::INET, SocketAddrAny::from(*tcp)),
        Address::Tcp(tcp) => (AddressFamily::INET6, SocketAddrAny::from(*tcp)),
    };
    let fd = socket_with(family, SocketType::STREAM, flags(blocking), None)?;
    if matches!(address, Address::Tcp(_)) {
        no_delay(fd.as_fd());
    }
    Ok((fd, kernel))
}

fn unix(path: &Path) -> io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|errno| {
        let message = format!("{} cannot name a Unix socket: {errno}; 107 bytes at most", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

/// Small messages go out at once: storage protocols wait for each other's answers. Not every stream is TCP; a
/// failure is ignored.
pub(crate) fn no_delay(fd: BorrowedFd<'_>) {
    let _ = sockopt::set_tcp_nodelay(fd, true);
}

/// Binds and listens.
pub(crate) fn listen(
    address: &Address,
    backlog: u32,
    blocking: bool,
    engine_id: &EngineId,
) -> io::Result<Listener> {
    let named = |errno| cannot_listen(address, errno);
    let (fd, kernel) = stream_for(address, blocking)?;
    if matches!(address, Address::Tcp(_)) {
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    bind(&fd, &kernel).map_err(named)?;
    listen_on(&fd, i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(named)?;
    let mut address = address.clone();
    if let Address::Tcp(tcp) = &mut address {
        *tcp = SocketAddr::try_from(getsockname(&fd)?)?;
    }
    Ok(Listener(Arc::new(ListenerInner {
        engine_id: engine_id.clone(),
        body: Body::Os(fd),
        address,
        _owned: None,
    })))
}

/// Binds a Unix path to a socket to which only its owner's programs may connect, and listens.
pub(crate) fn listen_private(path: &Path, backlog: u32, blocking: bool) -> io::Result<(OwnedFd, Address)> {
    let address = Address::Unix(path.to_owned());
    let named = |errno| cannot_listen(&address, errno);
    let (fd, kernel) = stream_for(&address, blocking)?;
    // The file is created with the socket's mode, so that it never has another one.
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o600)).map_err(named)?;
    bind(&fd, &kernel).map_err(named)?;
    listen_on(&fd, i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(named)?;
    Ok((fd, address))
}

/// Why it cannot listen, with the remedy if one is known.
fn cannot_listen(address: &Address, errno: Errno) -> io::Error {
    let remedy = match (errno, address) {
        (Errno::ADDRINUSE, Address::Tcp(_)) => "; use another port, or stop what has it",
        (Errno::ADDRNOTAVAIL, Address::Tcp(_)) => {
            "; use an address of this machine, or 0.0.0.0 or [::] for all"
        }
        (Errno::ACCESS, Address::Tcp(_)) => {
            "; use a port from 1024 on, or run as a user who may use this one"
        }
        _ => "",
    };
    let error = io::Error::from(errno);
    reworded(&error, format!("cannot listen on {address}: {error}{remedy}"))
}

/// The same kind of error, preceded by the address.
pub(crate) fn cannot_connect(address: &Address, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot connect to {address}: {error}"))
}

/// Two connected Unix streams.
pub(crate) fn pair(blocking: bool, engine_id: &EngineId) -> io::Result<(Socket, Socket)> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags(blocking), None)?;
    Ok((Socket::from_fd(a, engine_id), Socket::from_fd(b, engine_id)))
}

/// Ends one or both directions. Never blocks.
pub(crate) fn shutdown(socket: &Socket, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Both => rustix::net::Shutdown::Both,
    };
    Ok(rustix::net::shutdown(socket.fd()?, how)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_peer_that_takes_nothing_is_given_up_after_four_times_the_silence() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let client = std::net::TcpStream::connect(address).expect("it listens");
        let socket = Socket::from_fd(client.into(), &EngineId::new());
        socket.keep_alive(Duration::from_secs(60)).expect("TCP has it");
        let fd = socket.fd().expect("a socket of the system");
        assert_eq!(sockopt::tcp_user_timeout(fd).expect("asked"), 240_000);
        assert!(sockopt::socket_keepalive(fd).expect("asked"));
    }
}
