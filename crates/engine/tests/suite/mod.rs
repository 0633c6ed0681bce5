//! What every engine must hold, written once and run over all three.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod files;
pub mod sleep;
pub mod sockets;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use spindle_engine::{
    Completion, Driver, Engine, EngineError, EngineKind, File, Op, OpenOptions, Output, Token,
};
use spindle_mem::{Buffers, IoBuf};

/// One driver of one engine, and a folder for files (a name only, in simulation).
pub struct Bench {
    pub engine: Engine,
    pub driver: Box<dyn Driver>,
    folder: Option<tempfile::TempDir>,
    next: u64,
    done: Vec<Completion>,
}

impl Bench {
    /// None where this machine does not offer the engine.
    pub fn new(kind: EngineKind) -> Option<Bench> {
        let engine = match Engine::open(kind) {
            Ok(engine) => engine,
            Err(error @ EngineError::NoUring { .. }) => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let driver = engine.driver(0).unwrap();
        // Beside the build, not in /tmp, which may be a tmpfs without direct transfers.
        let folder =
            engine.world().is_none().then(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        Some(Bench { engine, driver, folder, next: 1, done: Vec::new() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.path().join(name),
            None => PathBuf::from("/sim").join(name),
        }
    }

    pub fn submit(&mut self, op: Op) -> Token {
        let token = Token(self.next);
        self.next += 1;
        self.driver.submit(token, op);
        token
    }

    /// Drives until `token`'s operation is done. Fails after far longer than anything here takes.
    pub fn wait(&mut self, token: Token) -> Completion {
        let limit = self.driver.now() + Duration::from_secs(30);
        loop {
            if let Some(i) = self.done.iter().position(|c| c.token == token) {
                return self.done.swap_remove(i);
            }
            self.driver.poll(&mut self.done);
            if !self.done.iter().any(|c| c.token == token) {
                let now = self.driver.now();
                assert!(now < limit, "{token:?} does not end; {} in flight", self.driver.in_flight());
                self.driver.park(Some(limit));
            }
        }
    }

    /// Whether `token`'s operation is done after a few turns without sleeping.
    pub fn is_done(&mut self, token: Token) -> bool {
        for _ in 0..10 {
            self.driver.poll(&mut self.done);
        }
        self.done.iter().any(|c| c.token == token)
    }

    pub fn run(&mut self, op: Op) -> Completion {
        let token = self.submit(op);
        self.wait(token)
    }

    pub fn output(&mut self, op: Op) -> Output {
        let name = op.name();
        self.run(op).result.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn error(&mut self, op: Op) -> io::Error {
        let name = op.name();
        match self.run(op).result {
            Ok(output) => panic!("{name} gave {output:?}"),
            Err(error) => error,
        }
    }

    pub fn open(&mut self, options: OpenOptions) -> File {
        match self.output(Op::Open { options: Box::new(options) }) {
            Output::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    /// A fresh writable file of `size` bytes.
    pub fn file(&mut self, name: &str, size: u64) -> File {
        let options = OpenOptions::new(self.path(name)).writable(true).create(size);
        self.open(options)
    }

    pub fn write(&mut self, file: &File, offset: u64, bytes: &[u8]) -> usize {
        self.output(Op::Write { file: file.clone(), offset, buffers: buffer(bytes) }).bytes()
    }

    /// What lies there, as long as the file reaches.
    pub fn read(&mut self, file: &File, offset: u64, length: usize) -> Vec<u8> {
        let op = Op::Read { file: file.clone(), offset, buffers: IoBuf::zeroed(length).into() };
        let done = self.run(op);
        let count = done.result.expect("read").bytes();
        let mut bytes = bytes_of(&done.op.into_buffers());
        bytes.truncate(count);
        bytes
    }
}

pub fn buffer(bytes: &[u8]) -> Buffers {
    Buffers::from(IoBuf::copy_from(bytes))
}

pub fn bytes_of(buffers: &Buffers) -> Vec<u8> {
    buffers.iter().flat_map(|slice| slice.to_vec()).collect()
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
}
