//! The real binary in a temporary folder, and connections to it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use spindle_rpc::{Limits, Parsed, Parser, Value};

/// Far longer than anything takes; what takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// A daemon.
pub struct Daemon {
    pub folder: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts one that answers at `rpc.sock` of the folder; none if it ends before.
    pub fn start(folder: &Path, args: &[String]) -> Option<Daemon> {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut child = command(folder, args).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        // It says where it is reached when it is. The socket's file alone may be that of one that was killed.
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let mut daemon = Daemon { folder: folder.to_owned(), child };
        if said.starts_with("control") {
            return Some(daemon);
        }
        daemon.wait();
        None
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("rpc.sock")
    }

    pub fn connect(&self) -> Connection {
        Connection::to(&self.socket())
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: rustix::process::Signal) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            pause();
        }
        panic!("the daemon does not end");
    }

    /// Whether a second one on the same socket is refused, by the name of this one.
    pub fn refuses_a_second(&self, args: &[String]) -> bool {
        let second = command(&self.folder, args).output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        !second.status.success() && said.contains(&format!("process {}", self.child.id()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spindle"));
    command
        .args(["serve", "-m", "0x1", "-r", "rpc.sock", "--core-lock-folder", "."])
        .args(args)
        .current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[expect(clippy::disallowed_methods, reason = "a test on plain OS threads waits for a process")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The methods that the daemon has.
pub fn methods() -> BTreeSet<String> {
    let table = spindle_control::methods::table();
    table.methods().map(|method| method.name().to_owned()).collect()
}

/// One connection, as a client has it.
pub struct Connection {
    stream: UnixStream,
    parser: Parser,
    rest: Vec<u8>,
}

impl Connection {
    pub fn to(socket: &Path) -> Connection {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let limits = Limits { bytes: 1 << 30, values: 1 << 26, depth: 64 };
        Connection { stream, parser: Parser::new(limits), rest: Vec::new() }
    }

    /// Sends; a server that has closed already is no failure here.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
            _ => {}
        }
    }

    pub fn half_close(&mut self) {
        // Refused if the server has closed.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next value; none at the end of the stream.
    pub fn receive(&mut self) -> Option<Value> {
        loop {
            let (parsed, used) = self.parser.push(&self.rest).unwrap();
            self.rest.drain(..used);
            match parsed {
                Some(Parsed::Value(value)) => return Some(value),
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            let mut part = [0; 1 << 16];
            match self.stream.read(&mut part) {
                Ok(0) => return None,
                Ok(count) => self.rest.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Whether the server has closed, as far as can be seen now.
    pub fn is_closed(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let mut byte = [0];
        let came = self.stream.read(&mut byte);
        self.stream.set_nonblocking(false).unwrap();
        self.rest.extend_from_slice(&byte[..came.as_ref().map_or(0, |count| *count)]);
        matches!(came, Ok(0))
    }
}
