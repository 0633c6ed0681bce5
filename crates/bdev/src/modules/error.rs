//! `bdev_error_*`: a bdev that fails, delays or corrupts requests on demand, for tests of the layers above.
//!
//! Injections are shared by all threads: the next requests of a kind, up to a count, fail, wait, find no
//! memory, or have a byte of their data changed. Without injections every request is passed on to the base.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spindle_block::{
    Busy, Cx, Device, Io, IoErrorKind, IoId, Lane, LaneCx, LaneEvent, LaneId, Layer, LayerParts, OpenError,
    Operation, Status, Submit,
};
use uuid::Uuid;

use crate::{Base, Bdev, BdevError, BdevSpec, Detail, Disk, LocalFuture, Recipe, Registry, Virtual};

/// The module's name.
pub const MODULE: &str = "error";

/// How soon a request that found no memory is tried again if no other request ends before.
const RETRY: Duration = Duration::from_millis(10);

/// The kinds of requests that can be changed.
const KINDS: [Operation; 4] = [Operation::Read, Operation::Write, Operation::Unmap, Operation::Flush];

/// The effect of an injection on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The request fails with EIO and does not reach the base.
    Failure,
    /// The request waits until it is resumed or aborted, or the bdev is reset or removed.
    Pending,
    /// One byte of the data read or written is combined with `value` by exclusive or. Leaves requests that
    /// end before that byte, unmaps and flushes as they are.
    CorruptData {
        /// Offset of the byte in the request.
        offset: u64,
        /// Must not be 0.
        value: u8,
    },
    /// The request finds no memory: it waits in front of the device and is tried again.
    NoMemory,
    /// The request fails with an NVMe status.
    NvmeFailure {
        /// Status code type.
        sct: u32,
        /// Status code.
        sc: u32,
    },
}

/// An injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The effect.
    pub effect: Effect,
    /// Number of requests it applies to.
    pub count: u32,
    /// Applies only while the thread has at least this many requests on their way to the base.
    pub queue_depth: u64,
}

/// Selects the requests to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Requests of one kind: read, write, unmap or flush.
    One(Operation),
    /// Requests of all these kinds, each kind with its own count.
    All,
}

/// Describes an error bdev to create.
#[derive(Clone, Debug)]
pub struct ErrorSpec {
    /// The base bdev's name, alias or UUID. The new bdev is named after this string: `EE_<base>`.
    pub base: String,
    /// Its UUID; by default derived from the base's.
    pub uuid: Option<Uuid>,
}

/// Creates an error bdev, now or when its base comes. Returns the bdev if it was created now.
///
/// # Errors
/// As [`Registry::create_virtual`].
pub async fn create(registry: &Registry, spec: ErrorSpec) -> Result<Option<Bdev>, BdevError> {
    registry.create_one_virtual(spec).await
}

/// Deletes an error bdev.
///
/// # Errors
/// As [`Registry::delete_virtual`].
pub async fn delete(registry: &Registry, name: &str) -> Result<(), BdevError> {
    registry.delete_virtual(MODULE, name).await
}

/// Injects an effect into requests that come from now on. Replaces the kind's previous injection.
///
/// # Errors
/// No error bdev has that name (`ENODEV`); the kind cannot be changed, or the corruption would change nothing
/// (`EINVAL`).
pub fn inject(
    registry: &Registry,
    name: &str,
    target: Target,
    injection: Injection,
) -> Result<(), BdevError> {
    let what = || format!("injection into bdev {name:?}");
    if matches!(injection.effect, Effect::CorruptData { value: 0, .. }) {
        return Err(BdevError::argument(what(), "a corrupt_value of 0 changes nothing; give 1 to 255"));
    }
    let kind_of = |one| KINDS.iter().position(|kind| *kind == one);
    let kinds = match target {
        Target::All => 0..KINDS.len(),
        Target::One(operation) => match kind_of(operation) {
            Some(kind) => kind..kind + 1,
            None => {
                let why = format!("nothing can be done to a {operation}; take read, write, unmap or flush");
                return Err(BdevError::argument(what(), why));
            }
        },
    };
    let device = device_of(registry, name)?;
    let mut plan = device.plan();
    plan[kinds].fill(Some(injection));
    device.armed.store(true, Ordering::Release);
    Ok(())
}

/// Removes the injections. Waiting requests go on waiting.
///
/// # Errors
/// No error bdev has that name (`ENODEV`).
pub fn clear(registry: &Registry, name: &str) -> Result<(), BdevError> {
    let device = device_of(registry, name)?;
    let mut plan = device.plan();
    plan.fill(None);
    device.armed.store(false, Ordering::Release);
    Ok(())
}

/// Passes waiting requests on, and lets no later one wait. Resolves once that has happened on every thread.
///
/// # Errors
/// No error bdev has that name (`ENODEV`).
pub async fn resume(registry: &Registry, name: &str) -> Result<(), BdevError> {
    let device = device_of(registry, name)?;
    for place in device.plan().iter_mut() {
        place.take_if(|injection| injection.effect == Effect::Pending);
    }
    device.parts.state().send(Arc::new(GoOn)).await;
    Ok(())
}

fn device_of(registry: &Registry, name: &str) -> Result<Arc<ErrorDevice>, BdevError> {
    let bdev = registry.of_module(MODULE, name)?;
    let disk = (&**bdev.disk() as &dyn Any).downcast_ref::<ErrorDisk>();
    disk.map(|disk| disk.device.clone()).ok_or_else(|| BdevError::NoSuchBdev { name: name.to_owned() })
}

impl ErrorSpec {
    /// The name of its bdev.
    fn name(&self) -> String {
        format!("EE_{}", self.base)
    }
}

impl Virtual for ErrorSpec {
    fn module(&self) -> &'static str {
        MODULE
    }

    fn key(&self) -> &str {
        &self.base
    }

    fn base(&self) -> &str {
        &self.base
    }

    fn comes_back(&self) -> bool {
        false
    }

    fn is_named(&self, name: &str) -> bool {
        self.name() == name
    }

    fn holder(&self) -> String {
        format!("{MODULE} bdev {:?}", self.name())
    }

    fn recipe(&self) -> Option<Recipe> {
        let uuid = self.uuid.map(|uuid| ("uuid", uuid.to_string().into()));
        let params = [("base_name", self.base.clone().into())].into_iter().chain(uuid);
        Some(Recipe { method: "bdev_error_create", params: Detail::Object(params.collect()) })
    }

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let name = self.name();
        let device = Arc::new(ErrorDevice {
            parts: LayerParts::new(&name, base.device()),
            plan: Mutex::default(),
            armed: AtomicBool::new(false),
        });
        let disk = Arc::new(ErrorDisk { device, base: base.name().to_owned() });
        let derived = base.derive_part_uuid(0, base.geometry().blocks());
        let spec = BdevSpec::new(name, "Error Injection Disk", MODULE, disk);
        Ok(vec![spec.with_uuid(Some(derived)).with_uuid(self.uuid)])
    }
}

struct ErrorDisk {
    device: Arc<ErrorDevice>,
    base: String,
}

impl Disk for ErrorDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    fn details(&self) -> LocalFuture<'_, Detail> {
        let members = vec![("base_bdev", self.base.clone().into())];
        Box::pin(std::future::ready(Detail::Object(vec![("error_disk", Detail::Object(members))])))
    }

    fn recipe(&self, bdev: &Bdev) -> Option<Recipe> {
        let params = vec![("base_name", self.base.clone().into()), ("uuid", bdev.uuid().to_string().into())];
        Some(Recipe { method: "bdev_error_create", params: Detail::Object(params) })
    }
}

type Plan = [Option<Injection>; KINDS.len()];

/// The device, shared by all threads.
struct ErrorDevice {
    parts: LayerParts,
    plan: Mutex<Plan>,
    /// True if there is a plan; otherwise a request takes no lock.
    armed: AtomicBool,
}

/// Makes the lanes of all threads release their waiting requests.
struct GoOn;

impl ErrorDevice {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the effect on a request that comes while `in_flight` are on their way to the base.
    fn hit(&self, operation: Operation, in_flight: u64) -> Option<Effect> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let kind = KINDS.iter().position(|kind| *kind == operation)?;
        let mut plan = self.plan();
        let injection = plan[kind].as_mut()?;
        if in_flight < injection.queue_depth {
            return None;
        }
        let effect = injection.effect;
        match injection.count.checked_sub(1) {
            Some(left) => injection.count = left,
            None => {
                plan[kind] = None;
                self.armed.store(plan.iter().any(Option::is_some), Ordering::Release);
                return None;
            }
        }
        Some(effect)
    }
}

impl Layer for ErrorDevice {
    fn parts(&self) -> &LayerParts {
        &self.parts
    }

    fn lane(self: Arc<Self>, below: LaneId, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(ErrorLane { below, device: self, in_flight: 0, waiting: Vec::new() }))
    }
}

/// The device's part on one thread.
struct ErrorLane {
    below: LaneId,
    device: Arc<ErrorDevice>,
    /// Requests on their way to the base.
    in_flight: u64,
    /// Requests that wait to be resumed, oldest first.
    waiting: Vec<Io>,
}

impl ErrorLane {
    fn pass_on(&mut self, io: Io, saved: [u64; 2], cx: &mut Cx<'_>) {
        self.in_flight += 1;
        cx.forward(self.below, io, saved);
    }
}

/// Changes one byte of a request's data, if it is that long. A second call restores it.
fn corrupt(io: &mut Io, mut offset: u64, value: u8) {
    for part in io.buffers_mut().iter_mut() {
        if let Some(byte) = usize::try_from(offset).ok().and_then(|at| part.get_mut(at)) {
            *byte ^= value;
            return;
        }
        offset -= part.len() as u64;
    }
}

impl Lane for ErrorLane {
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let operation = io.operation();
        match self.device.hit(operation, self.in_flight) {
            None => self.pass_on(io, [0, 0], cx),
            Some(Effect::CorruptData { offset, value }) => {
                // The byte is restored before the caller gets its data back.
                if operation == Operation::Write {
                    corrupt(&mut io, offset, value);
                }
                self.pass_on(io, [u64::from(value), offset], cx);
            }
            Some(Effect::Failure) => cx.done(io, Err(IoErrorKind::Device { errno: 5 })),
            Some(Effect::NvmeFailure { sct, sc }) => {
                cx.done(io, Err(IoErrorKind::Protocol(sct << 8 | sc & 0xff)));
            }
            Some(Effect::Pending) => self.waiting.push(io),
            Some(Effect::NoMemory) => {
                let again = cx.now() + RETRY;
                cx.poll_at(again);
                return Submit::Full(io);
            }
        }
        Submit::Taken
    }

    fn complete(&mut self, mut io: Io, [value, offset]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        self.in_flight -= 1;
        let reads = io.operation() == Operation::Read && status.is_ok();
        if value != 0 && (reads || io.operation() == Operation::Write) {
            corrupt(&mut io, offset, value as u8);
        }
        cx.done(io, status);
    }

    fn poll(&mut self, _cx: &mut Cx<'_>) -> Busy {
        // The lane table offers requests that found no memory again.
        Busy::Yes
    }

    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        match event {
            LaneEvent::Removed | LaneEvent::Reset => {
                for io in std::mem::take(&mut self.waiting) {
                    cx.done(io, Err(IoErrorKind::Aborted));
                }
            }
            LaneEvent::Module(own) if own.is::<GoOn>() => {
                for io in std::mem::take(&mut self.waiting) {
                    self.pass_on(io, [0, 0], cx);
                }
            }
            _ => {}
        }
    }

    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        if let Some(at) = self.waiting.iter().position(|io| io.id() == id) {
            cx.done(self.waiting.remove(at), Err(IoErrorKind::Aborted));
        }
    }

    fn orphaned(&mut self, cx: &mut Cx<'_>) {
        let ended: Vec<Io> = self.waiting.extract_if(.., |io| cx.is_orphaned(io)).collect();
        ended.into_iter().for_each(|io| cx.done(io, Err(IoErrorKind::Aborted)));
    }

    fn abandoned(&mut self, cx: &mut Cx<'_>) {
        // They have changed nothing yet.
        let given_up = |io: &mut Io| io.operation().changes_data() && cx.is_abandoned(io);
        let ended: Vec<Io> = self.waiting.extract_if(.., given_up).collect();
        ended.into_iter().for_each(|io| cx.done(io, Err(IoErrorKind::Aborted)));
    }
}
