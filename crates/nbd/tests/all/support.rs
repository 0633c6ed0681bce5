//! A server in a second runtime, beside a test that blocks: for programs and for sockets of the system.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use spindle_block::{Device, File, FileOptions, Malloc};
use spindle_nbd::{Address, Ended, Export, Options, Server};
use spindle_reactor::{EngineKind, ReportLevel, Reporter, Running, Runtime, Thread};

/// Keeps what servers say; what else a runtime reports goes to standard error.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    /// What was said so far that contains some words.
    pub fn lines_with(&self, words: &str) -> Vec<String> {
        let said = self.0.lock().unwrap();
        said.iter().filter(|line| line.contains(words)).cloned().collect()
    }
}

impl Reporter for Said {
    fn wants(&self, level: ReportLevel, part: &str) -> bool {
        part == "nbd" || level < ReportLevel::Info
    }

    fn report(&self, _: ReportLevel, part: &'static str, text: &str) {
        match part {
            "nbd" => self.0.lock().unwrap().push(text.to_owned()),
            _ => eprintln!("{part}: {text}"),
        }
    }

    fn dump(&self, text: &str) {
        eprintln!("{text}");
    }
}

/// A runtime with a server that listens at a Unix socket.
pub struct Served {
    pub server: Server,
    pub socket: PathBuf,
    pub folder: tempfile::TempDir,
    pub said: Said,
    thread: Thread,
    _running: Running,
}

impl Served {
    /// A server on two reactors that exports nothing yet.
    pub fn start(kind: EngineKind, options: Options) -> Served {
        let said = Said::default();
        let builder = Runtime::builder().engine(kind).reactors(2).reporter(Arc::new(said.clone()));
        let running = builder.build().unwrap().start().unwrap();
        let cores: Vec<usize> = running.handle().cores().to_vec();
        let threads = cores.iter().enumerate().map(|(index, core)| {
            running.handle().create_thread(&format!("nbd_{index}"), &format!("[{core}]")).unwrap()
        });
        let threads: Vec<Thread> = threads.collect();
        let thread = threads[0].clone();
        let server = Server::new(options, threads);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nbd.sock");
        let served = Served { server, socket, folder, said, thread, _running: running };
        served.listen(Address::Unix(served.socket.clone()));
        served
    }

    pub fn listen(&self, address: Address) -> Address {
        let server = self.server.clone();
        self.run(async move || server.listen(address).await.unwrap())
    }

    /// Runs a future on a thread of the runtime, and waits for it.
    pub fn run<R: Send + 'static>(&self, f: impl AsyncFnOnce() -> R + Send + 'static) -> R {
        self.thread.spawn(f).wait().unwrap()
    }

    /// Exports a RAM disk.
    pub fn export_malloc(&self, name: &str, block: u32, bytes: u64) {
        let device = Malloc::new(name, block, bytes / u64::from(block)).unwrap();
        self.server.add_export(Export::new(name, device)).unwrap();
    }

    /// Exports a file of zeroes.
    pub fn export_file(&self, name: &str, bytes: u64) {
        let path = self.folder.path().join(format!("{name}.img"));
        let device: Arc<dyn Device> = self.run(async move || {
            File::open(FileOptions::new(path).writable(true).create(bytes)).await.unwrap() as Arc<dyn Device>
        });
        self.server.add_export(Export::new(name, device)).unwrap();
    }

    pub fn stop(&self) -> Ended {
        let server = self.server.clone();
        self.run(async move || server.stop().await)
    }

    pub fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket.display())
    }
}

/// Whether a program is installed; says so if it is not.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

/// Runs a program that must end within a minute; its output, whatever it was.
pub fn ran(program: &str, arguments: &[&str]) -> Output {
    Command::new("timeout").arg("60").arg(program).args(arguments).output().unwrap()
}

/// Runs a program that must succeed; what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = ran(program, arguments);
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}{errors}", output.status);
    out.into_owned()
}
