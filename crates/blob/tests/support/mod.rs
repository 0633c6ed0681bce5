//! What the tests share: runtimes on several engines, disks, fixtures, patterns.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use spindle_blob::{Blob, Blobstore, InitOptions, LayoutOptions, MdPages};
use spindle_block::{
    Busy, Cx, Device, Geometry, Io, IoErrorKind, Lane, LaneCx, LaneId, OpenError, Operation, SimDisk, Submit,
};
use spindle_engine::sim::{Disk, DiskOptions, Image};
use spindle_mem::IoBuf;
use spindle_reactor::{EngineKind, Runtime};

/// Runs a test's main on one reactor under an engine.
pub fn run_on<R: Send + 'static>(engine: &str, main: impl AsyncFnOnce() -> R + Send + 'static) -> R {
    let engine: EngineKind = engine.parse().unwrap();
    Runtime::builder().reactors(1).engine(engine).build().unwrap().run(main).unwrap()
}

/// Runs a test's main under a real engine and under a few simulated ones.
pub fn run_everywhere<R: Send + 'static>(main: impl AsyncFnOnce() -> R + Clone + Send + 'static) {
    for engine in ["epoll", "sim:1", "sim:2", "sim:3"] {
        run_on(engine, main.clone());
    }
}

/// A disk of zeroes of so many MiB that tears at 512 bytes and loses what is not flushed.
pub fn disk(mib: u64) -> Disk {
    Disk::new(DiskOptions::new(mib << 20))
}

/// A disk with this content and 4096-byte blocks.
pub fn disk_of(image: Image) -> Disk {
    let options = DiskOptions { block: 4096, atomic_unit: 4096, ..DiskOptions::new(image.size()) };
    Disk::from_image(image, options)
}

/// A disk like [`disk`]'s with this content.
pub fn disk_again(image: Image) -> Disk {
    let options = DiskOptions::new(image.size());
    Disk::from_image(image, options)
}

/// The disk as a device whose completions come at once.
pub fn device(disk: &Disk) -> Arc<dyn Device> {
    SimDisk::immediate("disk0", disk.clone()).unwrap()
}

/// The disk as a device whose completions are delayed and reordered.
pub fn slow_device(disk: &Disk, seed: u64) -> Arc<dyn Device> {
    SimDisk::new("disk0", disk.clone(), seed).unwrap()
}

/// A store with clusters of 64 KiB.
pub fn small() -> InitOptions {
    let layout = LayoutOptions { cluster_size: 64 << 10, ..LayoutOptions::default() };
    InitOptions { layout, ..InitOptions::default() }
}

pub const CLUSTER: u64 = 64 << 10;

/// A store with clusters of 64 KiB, and so many metadata pages.
pub fn small_with(md_pages: MdPages) -> InitOptions {
    let layout = LayoutOptions { cluster_size: CLUSTER as u32, md_pages, ..LayoutOptions::default() };
    InitOptions { layout, ..InitOptions::default() }
}

pub async fn init(disk: &Disk) -> Blobstore {
    Blobstore::init(device(disk), small()).await.unwrap()
}

pub async fn load(disk: &Disk) -> Blobstore {
    Blobstore::load(device(disk), Default::default()).await.unwrap()
}

pub async fn write(blob: &Blob, offset: u64, bytes: &[u8]) {
    blob.write(offset, IoBuf::copy_from(bytes)).await.0.unwrap();
}

pub async fn fill(blob: &Blob, offset: u64, len: u64, byte: u8) {
    write(blob, offset, &vec![byte; len as usize]).await;
}

pub async fn read(blob: &Blob, offset: u64, len: u64) -> Vec<u8> {
    let (result, buffers) = blob.read(offset, IoBuf::zeroed(len as usize)).await;
    result.unwrap();
    buffers.to_vec()
}

/// The byte that a range holds throughout.
pub async fn byte(blob: &Blob, offset: u64, len: u64) -> u8 {
    let bytes = read(blob, offset, len).await;
    assert!(bytes.iter().all(|&byte| byte == bytes[0]), "{offset} of {blob:?} holds more than one byte");
    bytes[0]
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// A fixture by its path below `tests/fixtures`, without `.img.zst`.
pub fn fixture(name: &str) -> Image {
    let file = std::fs::File::open(fixtures().join(format!("{name}.img.zst"))).unwrap();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(std::io::BufReader::new(file)).unwrap();
    let mut bytes = Vec::new();
    decoder.read_to_end(&mut bytes).unwrap();
    Image::from_bytes(&bytes)
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the format's own loader and checker say about the disk as a crash without loss leaves it.
pub fn check(disk: &Disk) -> spindle_format::Store {
    let store = check_image(disk.snapshot().visible());
    assert_eq!(store.repairs, [], "nothing is left to repair");
    store
}

pub fn check_image(image: &Image) -> spindle_format::Store {
    let mut loader = spindle_format::Loader::new(image.size(), Default::default());
    while let Some(range) = loader.next_read() {
        let mut bytes = vec![0; range.len];
        image.read(range.offset, &mut bytes);
        loader.supply(range, &bytes);
    }
    let store = loader.finish().unwrap();
    let mut wrong = spindle_format::check::check(&store);
    // What a crash cut off and the next load puts right is in order.
    wrong.retain(|finding| !matches!(finding, spindle_format::check::Finding::Pending(_)));
    assert_eq!(wrong, [], "the store is in order");
    store
}

/// A device that knows reads, writes and flushes only.
pub struct Plain(Arc<dyn Device>);

impl Plain {
    pub fn new(below: Arc<dyn Device>) -> Arc<Plain> {
        Arc::new(Plain(below))
    }
}

impl Device for Plain {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(PlainLane(cx.open(&self.0)?)))
    }
}

struct PlainLane(LaneId);

impl Lane for PlainLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        match io.operation() {
            Operation::Unmap | Operation::WriteZeroes => cx.done(io, Err(IoErrorKind::Unsupported)),
            _ => cx.forward(self.0, io, [0, 0]),
        }
        Submit::Taken
    }
}

/// A device that is smaller than what it stands on, until it grows.
pub struct Growing {
    below: Arc<dyn Device>,
    small: Geometry,
    grown: std::sync::atomic::AtomicBool,
}

impl Growing {
    pub fn new(below: Arc<dyn Device>, blocks: u64) -> Arc<Growing> {
        let small = below.geometry().with_blocks(blocks).unwrap();
        Arc::new(Growing { below, small, grown: false.into() })
    }

    pub fn grow(&self) {
        self.grown.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Device for Growing {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn geometry(&self) -> Geometry {
        let grown = self.grown.load(std::sync::atomic::Ordering::SeqCst);
        if grown { self.below.geometry() } else { self.small }
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(PassLane(cx.open(&self.below)?)))
    }
}

struct PassLane(LaneId);

impl Lane for PassLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        cx.forward(self.0, io, [0, 0]);
        Submit::Taken
    }
}

/// A device that keeps requests which come while it is told to hold them, until it is told to let them go. For one
/// thread.
pub struct Stuck {
    below: Arc<dyn Device>,
    state: Arc<Mutex<Hold>>,
}

#[derive(Default)]
struct Hold {
    holds: bool,
    goes: bool,
    /// Requests that begin before this block are not held.
    from: u64,
    /// How many changes and flushes are let through before it holds.
    passes: Option<usize>,
}

impl Hold {
    /// Whether this request is held.
    fn holds(&mut self, io: &Io) -> bool {
        match &mut self.passes {
            Some(0) => self.holds = true,
            Some(left) if io.operation() != Operation::Read => *left -= 1,
            _ => {}
        }
        self.holds && io.start() >= self.from
    }
}

impl Stuck {
    pub fn new(below: Arc<dyn Device>) -> Arc<Stuck> {
        Arc::new(Stuck { below, state: Arc::default() })
    }

    /// Whether requests that come from now on are held.
    pub fn hold(&self, holds: bool) {
        self.state.lock().unwrap().holds = holds;
    }

    /// Whether requests that begin at or after this block are held from now on.
    pub fn hold_from(&self, from: u64) {
        *self.state.lock().unwrap() = Hold { holds: true, goes: false, from, passes: None };
    }

    /// Requests are held behind so many more changes and flushes.
    pub fn let_pass(&self, changes: usize) {
        *self.state.lock().unwrap() = Hold { passes: Some(changes), ..Hold::default() };
    }

    /// Those that are held go on, in a later turn.
    pub fn let_go(&self) {
        *self.state.lock().unwrap() = Hold { holds: false, goes: true, ..Hold::default() };
    }
}

impl Device for Stuck {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(StuckLane { below: cx.open(&self.below)?, state: self.state.clone(), held: Vec::new() }))
    }
}

struct StuckLane {
    below: LaneId,
    state: Arc<Mutex<Hold>>,
    held: Vec<Io>,
}

impl Lane for StuckLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        if self.state.lock().unwrap().holds(&io) {
            self.held.push(io);
            cx.poll_soon();
        } else {
            cx.forward(self.below, io, [0, 0]);
        }
        Submit::Taken
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        if self.state.lock().unwrap().goes {
            for io in std::mem::take(&mut self.held) {
                cx.forward(self.below, io, [0, 0]);
            }
        } else if !self.held.is_empty() {
            cx.poll_soon();
        }
        Busy::Yes
    }
}

/// Polls a future once.
pub fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Bytes that a [`Host`] counts together.
pub const UNIT: u64 = 64 << 10;

/// A device on a host that has room for so many units, and can tell which it holds; zeroes take room there, unmapped
/// ranges give it back.
pub struct Host {
    below: Arc<dyn Device>,
    unmap_reads_zero: bool,
    used: Arc<Mutex<(std::collections::BTreeSet<u64>, usize)>>,
    /// What it answers when it has no room.
    refusal: Mutex<IoErrorKind>,
    refuses_all: std::sync::atomic::AtomicBool,
}

impl Host {
    pub fn new(below: Arc<dyn Device>, unmap_reads_zero: bool) -> Arc<Host> {
        Arc::new(Host {
            below,
            unmap_reads_zero,
            used: Arc::new(Mutex::new((Default::default(), usize::MAX))),
            refusal: Mutex::new(IoErrorKind::NoSpace),
            refuses_all: false.into(),
        })
    }

    /// Answers this from now on when it has no room.
    pub fn refuses_with(&self, kind: IoErrorKind) {
        *self.refusal.lock().unwrap() = kind;
    }

    /// Refuses every change with this from now on.
    pub fn refuse_writes(&self, kind: IoErrorKind) {
        self.refuses_with(kind);
        self.refuses_all.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Units that hold something.
    pub fn used(&self) -> usize {
        self.used.lock().unwrap().0.len()
    }

    /// Has room for so many units more than it holds.
    pub fn leave_room(&self, units: usize) {
        let mut used = self.used.lock().unwrap();
        used.1 = used.0.len() + units;
    }
}

impl Device for Host {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry().with_unmap_reads_zero(self.unmap_reads_zero)
    }

    fn supports(&self, operation: Operation) -> bool {
        self.below.supports(operation) || matches!(operation, Operation::SeekData | Operation::SeekHole)
    }

    fn lane(self: Arc<Self>, cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(HostLane { below: cx.open(&self.below)?, host: self }))
    }
}

struct HostLane {
    below: LaneId,
    host: Arc<Host>,
}

impl Lane for HostLane {
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let block = u64::from(self.host.below.geometry().block_size());
        let (first, end) = (io.start() * block, (io.start() + io.count()) * block);
        if io.operation().changes_data() && self.host.refuses_all.load(std::sync::atomic::Ordering::Relaxed) {
            cx.done(io, Err(*self.host.refusal.lock().unwrap()));
            return Submit::Taken;
        }
        let mut used = self.host.used.lock().unwrap();
        match io.operation() {
            Operation::Write | Operation::WriteZeroes => {
                for unit in first / UNIT..end.div_ceil(UNIT) {
                    if !used.0.contains(&unit) && used.0.len() >= used.1 {
                        cx.done(io, Err(*self.host.refusal.lock().unwrap()));
                        return Submit::Taken;
                    }
                    used.0.insert(unit);
                }
            }
            Operation::Unmap => {
                for unit in first.div_ceil(UNIT)..end / UNIT {
                    used.0.remove(&unit);
                }
            }
            Operation::SeekData | Operation::SeekHole => {
                let (for_data, end) = (io.operation() == Operation::SeekData, self.host.geometry().bytes());
                let found = (first / UNIT..end / UNIT).find(|unit| used.0.contains(unit) == for_data);
                io.set_aux(found.map_or(end, |unit| (unit * UNIT).max(first)) / block);
                drop(used);
                cx.done(io, Ok(()));
                return Submit::Taken;
            }
            _ => {}
        }
        drop(used);
        cx.forward(self.below, io, [0, 0]);
        Submit::Taken
    }
}
