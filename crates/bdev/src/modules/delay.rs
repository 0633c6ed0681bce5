//! `bdev_delay_*`: a bdev that answers later than its base, for tests of timeouts and slow devices.
//!
//! The lane holds reads and writes for a while when they come back from the base: one in a hundred, chosen
//! the same way in every run, for longer. A shortened time applies to later requests; those already held end
//! first.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spindle_block::{
    Busy, Cx, Device, Io, IoErrorKind, IoId, Lane, LaneCx, LaneEvent, LaneId, Layer, LayerParts, OpenError,
    Operation, Status, Submit,
};
use spindle_reactor::Time;
use uuid::Uuid;

use crate::{Base, Bdev, BdevError, BdevSpec, Detail, Disk, LocalFuture, Recipe, Registry, Virtual};

/// The module's name.
pub const MODULE: &str = "delay";

/// The method that asks for one.
const CREATE: &str = "bdev_delay_create";

/// SPDK's namespace for the UUIDs of delay bdevs.
const NAMESPACE: Uuid = Uuid::from_u128(0x4009b574_6430_4f1b_bc40_ace811091027);

/// One request in this many takes the longer time.
const ONE_IN: u64 = 100;

/// Names one of the four times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// The time of most reads.
    AvgRead,
    /// The time of one read in a hundred.
    P99Read,
    /// The time of most writes.
    AvgWrite,
    /// The time of one write in a hundred.
    P99Write,
}

impl Latency {
    const ALL: [Latency; 4] = [Latency::AvgRead, Latency::P99Read, Latency::AvgWrite, Latency::P99Write];

    fn name(self) -> &'static str {
        match self {
            Latency::AvgRead => "avg_read_latency",
            Latency::P99Read => "p99_read_latency",
            Latency::AvgWrite => "avg_write_latency",
            Latency::P99Write => "p99_write_latency",
        }
    }
}

/// Describes a delay bdev to create.
#[derive(Clone, Debug)]
pub struct DelaySpec {
    /// Its name.
    pub name: String,
    /// The base bdev's name, alias or UUID.
    pub base: String,
    /// Its UUID; by default derived from the base's.
    pub uuid: Option<Uuid>,
    /// Microseconds, in the order of [`Latency`]: average and 99th percentile of reads, then of writes.
    pub latencies: [u64; 4],
}

/// Creates a delay bdev, now or when its base comes. Returns the bdev if it was created now.
///
/// # Errors
/// A percentile below its average (`EINVAL`); otherwise as [`Registry::create_virtual`].
pub async fn create(registry: &Registry, spec: DelaySpec) -> Result<Option<Bdev>, BdevError> {
    let [avg_read, p99_read, avg_write, p99_write] = spec.latencies;
    if p99_read < avg_read || p99_write < avg_write {
        let what = format!("delay bdev {:?}", spec.name);
        return Err(BdevError::argument(what, "a p99 latency is below its average; raise it"));
    }
    registry.create_one_virtual(spec).await
}

/// Deletes a delay bdev.
///
/// # Errors
/// As [`Registry::delete_virtual`].
pub async fn delete(registry: &Registry, name: &str) -> Result<(), BdevError> {
    registry.delete_virtual(MODULE, name).await
}

/// Changes one of the times, for requests that come back from the base from now on. Does not compare a
/// percentile with its average.
///
/// # Errors
/// No delay bdev has that name (`ENODEV`).
pub fn update(registry: &Registry, name: &str, latency: Latency, microseconds: u64) -> Result<(), BdevError> {
    let bdev = registry.of_module(MODULE, name)?;
    if let Some(disk) = disk_of(&bdev) {
        disk.device.latencies[latency as usize].store(microseconds, Ordering::Relaxed);
    }
    Ok(())
}

/// Percentiles below their averages, which `create` refuses. A saved configuration sets them by [`update`] after the
/// call of [`Disk::recipe`].
pub fn latencies_below_average(bdev: &Bdev) -> Vec<(Latency, u64)> {
    let Some(disk) = disk_of(bdev) else { return Vec::new() };
    let latencies = disk.latencies();
    let differing = Latency::ALL.into_iter().zip(latencies).zip(creatable(latencies));
    differing.filter(|((_, time), created)| time != created).map(|(which, _)| which).collect()
}

fn disk_of(bdev: &Bdev) -> Option<&DelayDisk> {
    (&**bdev.disk() as &dyn Any).downcast_ref()
}

/// The same times with each percentile raised to its average.
fn creatable([avg_read, p99_read, avg_write, p99_write]: [u64; 4]) -> [u64; 4] {
    [avg_read, p99_read.max(avg_read), avg_write, p99_write.max(avg_write)]
}

impl Virtual for DelaySpec {
    fn module(&self) -> &'static str {
        MODULE
    }

    fn key(&self) -> &str {
        &self.name
    }

    fn base(&self) -> &str {
        &self.base
    }

    fn recipe(&self) -> Option<Recipe> {
        let params = described(&self.name, &self.base, self.uuid, self.latencies);
        Some(Recipe { method: CREATE, params: Detail::Object(params) })
    }

    fn make(&self, base: &Base) -> Result<Vec<BdevSpec>, BdevError> {
        let device = Arc::new(Delay {
            parts: LayerParts::new(&self.name, base.device()),
            latencies: self.latencies.map(AtomicU64::new),
            seeds: AtomicU64::new(0),
        });
        let uuid = base.uuid_or_derived(self.uuid, NAMESPACE);
        let disk = Arc::new(DelayDisk { device, base: base.name().to_owned(), uuid });
        Ok(vec![BdevSpec::new(&self.name, "delay", MODULE, disk).with_uuid(Some(uuid))])
    }
}

struct DelayDisk {
    device: Arc<Delay>,
    base: String,
    uuid: Uuid,
}

impl DelayDisk {
    fn latencies(&self) -> [u64; 4] {
        self.device.latencies.each_ref().map(|time| time.load(Ordering::Relaxed))
    }

    fn described(&self, name: &str, latencies: [u64; 4]) -> Vec<(&'static str, Detail)> {
        described(name, &self.base, Some(self.uuid), latencies)
    }
}

/// What a delay bdev is, in SPDK's order.
fn described(name: &str, base: &str, uuid: Option<Uuid>, latencies: [u64; 4]) -> Vec<(&'static str, Detail)> {
    let mut members = vec![("name", name.into()), ("base_bdev_name", base.into())];
    members.extend(uuid.map(|uuid| ("uuid", uuid.to_string().into())));
    let latencies = Latency::ALL.into_iter().zip(latencies);
    members.extend(latencies.map(|(which, time)| (which.name(), time.into())));
    members
}

impl Disk for DelayDisk {
    fn device(&self) -> Arc<dyn Device> {
        self.device.clone()
    }

    fn details(&self) -> LocalFuture<'_, Detail> {
        let members = self.described(self.device.parts.name(), self.latencies());
        Box::pin(std::future::ready(Detail::Object(vec![("delay", Detail::Object(members))])))
    }

    fn recipe(&self, bdev: &Bdev) -> Option<Recipe> {
        let params = self.described(bdev.name(), creatable(self.latencies()));
        Some(Recipe { method: CREATE, params: Detail::Object(params) })
    }
}

/// The device, shared by all threads.
struct Delay {
    parts: LayerParts,
    /// Microseconds, indexed by [`Latency`].
    latencies: [AtomicU64; 4],
    /// Lanes made so far: the seed of each lane's choice.
    seeds: AtomicU64,
}

impl Layer for Delay {
    fn parts(&self) -> &LayerParts {
        &self.parts
    }

    fn lane(self: Arc<Self>, below: LaneId, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        let dice = self.seeds.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(DelayLane { below, device: self, held: Default::default(), dice, removed: false }))
    }
}

/// A request that came back and is held.
struct Held {
    io: Io,
    status: Status,
    until: Time,
}

/// The device's part on one thread.
struct DelayLane {
    below: LaneId,
    device: Arc<Delay>,
    /// Held requests, a queue for each of the times, in the order in which they came back.
    held: [VecDeque<Held>; 4],
    dice: u64,
    removed: bool,
}

/// In a frame: the request is not held.
const NOT_HELD: u64 = u64::MAX;

impl DelayLane {
    /// True for one request in a hundred.
    fn takes_long(&mut self) -> bool {
        // A linear congruential step; its high bits are the random ones.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33).is_multiple_of(ONE_IN)
    }

    /// Returns the index of the time that applies to an operation.
    fn latency_of(&mut self, operation: Operation) -> u64 {
        let long = u64::from(self.takes_long());
        match operation {
            Operation::Read => Latency::AvgRead as u64 + long,
            Operation::Write => Latency::AvgWrite as u64 + long,
            _ => NOT_HELD,
        }
    }

    /// Ends requests from the front of each queue while `over` accepts them.
    fn end_while(&mut self, over: impl Fn(&Held) -> bool, aborted: bool, cx: &mut Cx<'_>) -> bool {
        let mut any = false;
        for line in &mut self.held {
            while line.front().is_some_and(&over) {
                let Some(Held { io, status, .. }) = line.pop_front() else { break };
                any = true;
                cx.done(io, if aborted { Err(IoErrorKind::Aborted) } else { status });
            }
        }
        any
    }
}

impl Lane for DelayLane {
    fn submit(&mut self, io: Io, cx: &mut Cx<'_>) -> Submit {
        let latency = self.latency_of(io.operation());
        cx.forward(self.below, io, [latency, 0]);
        Submit::Taken
    }

    fn complete(&mut self, io: Io, [latency, _]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        let line = usize::try_from(latency).unwrap_or(usize::MAX);
        let Some(time) = self.device.latencies.get(line).map(|time| time.load(Ordering::Relaxed)) else {
            return cx.done(io, status);
        };
        // The removal waits for the requests held here.
        if time == 0 || self.removed {
            return cx.done(io, status);
        }
        let until = cx.now() + Duration::from_micros(time);
        self.held[line].push_back(Held { io, status, until });
        if self.held[line].len() == 1 {
            cx.poll_at(until);
        }
    }

    fn poll(&mut self, cx: &mut Cx<'_>) -> Busy {
        let now = cx.now();
        let any = self.end_while(|held| held.until <= now, false, cx);
        let next = self.held.iter().filter_map(|line| line.front().map(|held| held.until)).min();
        if let Some(next) = next {
            cx.poll_at(next);
        }
        if any { Busy::Yes } else { Busy::No }
    }

    fn event(&mut self, event: &LaneEvent, cx: &mut Cx<'_>) {
        match event {
            LaneEvent::Removed => {
                self.removed = true;
                self.end_while(|_| true, false, cx);
            }
            LaneEvent::Reset => {
                self.end_while(|_| true, true, cx);
            }
            _ => {}
        }
    }

    fn abort(&mut self, id: IoId, cx: &mut Cx<'_>) {
        for line in &mut self.held {
            if let Some(at) = line.iter().position(|held| held.io.id() == id)
                && let Some(Held { io, .. }) = line.remove(at)
            {
                return cx.done(io, Err(IoErrorKind::Aborted));
            }
        }
    }

    fn orphaned(&mut self, cx: &mut Cx<'_>) {
        for line in &mut self.held {
            for _ in 0..line.len() {
                match line.pop_front() {
                    Some(held) if cx.is_orphaned(&held.io) => cx.done(held.io, held.status),
                    held => line.extend(held),
                }
            }
        }
    }
}
