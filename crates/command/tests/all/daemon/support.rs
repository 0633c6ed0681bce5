//! A running daemon in a temporary folder.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The binary under test.
pub fn spindle(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spindle"));
    command.current_dir(folder);
    command
}

/// A daemon that has said where it is reached.
pub struct Daemon {
    pub folder: PathBuf,
    child: Child,
    output: BufReader<ChildStdout>,
    /// What it said until it was ready.
    pub said: String,
}

impl Daemon {
    /// Starts one and reads what it says until a line begins with `ready`.
    pub fn start(folder: &Path, args: &[&str], ready: &str) -> Daemon {
        let mut command = spindle(folder);
        command.args(args);
        Daemon::start_command(folder, command, ready)
    }

    /// The same for a command line of any kind.
    pub fn start_command(folder: &Path, mut command: Command, ready: &str) -> Daemon {
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        loop {
            let before = said.len();
            let read = output.read_line(&mut said).unwrap();
            assert!(read > 0, "{said}{}", std::fs::read_to_string(folder.join("log")).unwrap());
            if said[before..].starts_with(ready) {
                break;
            }
        }
        Daemon { folder: folder.to_owned(), child, output, said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal and waits for the end; what it said until then.
    pub fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }

    /// Waits for an end that was brought about otherwise; what it said until then.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }

    /// A call by `spindle rpc`.
    pub fn call(&self, arguments: &[&str]) -> Output {
        spindle(&self.folder).args(["rpc", "-s", "rpc.sock"]).args(arguments).output().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_owned()).unwrap()
}
