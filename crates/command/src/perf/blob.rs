//! The cost of a blob beside the bare disk: reads and writes of its own clusters, of missing ones, and of a
//! parent's.

use std::cell::Cell;
use std::sync::Arc;

use spindle::block::load::Pattern;
use spindle::block::{Channel, Device, Geometry, Operation};
use spindle::format::init::{self, MdPages};
use spindle::mem::IoBuf;
use spindle::reactor::Thread;
use spindle::{Blob, BlobOptions, Blobstore, InitOptions};

use super::figure::Figure;
use super::flight::{buffers, fly};
use super::medium::{BLOCK, Medium};
use super::pairs::{Pairs, Timed, timed, timed_by_cpu};
use super::{Effort, Failed, Figures, aims, clock, filling, runtime};

/// How long one side of a pair of steady load takes, in nanoseconds.
const ROUND_NS: u64 = 3_000_000;

/// Blobs on a disk, in pairs with the bare disk.
pub(crate) fn blob(effort: Effort, medium: Medium) -> Figures {
    let two_cores = spindle::engine::available_cores().set.len() > 1;
    let runtime = runtime(if two_cores { 2 } else { 1 })?;
    let cores = runtime.cores().to_vec();
    runtime.run(async move || {
        let bench = Bench::new(&medium, effort).await?;
        let other = match two_cores {
            true => Some(Thread::create("other", &format!("[{}]", cores[1]))?),
            false => None,
        };
        let figures = bench.all(other).await;
        let unloaded = bench.store.unload().await;
        let figures = figures?;
        unloaded?;
        Ok(figures)
    })?
}

/// A store on a disk with a part beyond it, where the bare disk is measured.
pub(super) struct Bench {
    pub(super) store: Blobstore,
    pub(super) channel: Channel,
    /// First byte of that part.
    pub(super) bare: u64,
    /// Bytes of a blob, and of that part.
    pub(super) bytes: u64,
    pub(super) effort: Effort,
    /// True if requests end in the call that makes them, so that CPU time is all the time.
    by_cpu: bool,
    device: Arc<dyn Device>,
    _disk: super::medium::Disk,
}

/// A load: its kind and depth.
#[derive(Clone, Copy)]
struct Load {
    operation: Operation,
    depth: usize,
}

/// Where on the disk the bytes of a blob lie.
#[derive(Clone)]
struct Place {
    clusters: Arc<[u64]>,
    /// Log2 of the cluster size.
    shift: u32,
}

impl Place {
    fn of(&self, byte: u64) -> u64 {
        self.clusters[(byte >> self.shift) as usize] + (byte & ((1 << self.shift) - 1))
    }
}

impl Bench {
    async fn new(medium: &Medium, effort: Effort) -> Result<Bench, Failed> {
        let bytes: u64 = if effort.quick { 4 << 20 } else { 64 << 20 };
        let disk = medium.disk(bytes * 16).await?;
        let device = disk.device.clone();
        effort.progress.at("the disk being filled");
        // Room for the blobs of the longest chain, on a small disk too.
        let layout = init::InitOptions { md_pages: MdPages::Count(1024), ..init::InitOptions::default() };
        let options = InitOptions { layout, ..InitOptions::default() };
        let store = Blobstore::init(device.clone(), options).await?;
        let channel = Channel::open(device.clone())?;
        let bare = bytes * 15;
        let by_cpu = medium.is_memory();
        let bench = Bench { store, channel, bare, bytes, effort, by_cpu, device, _disk: disk };
        bench.fill_bare().await?;
        Ok(bench)
    }

    /// Populates every page of the bare part.
    pub(super) async fn fill_bare(&self) -> Result<(), Failed> {
        let mut at = self.bare;
        fly(self.bytes >> 20, &mut buffers(4, 1 << 20), |buffers| {
            at += 1 << 20;
            self.channel.write(at - (1 << 20), buffers)
        })
        .await
    }

    async fn all(&self, other: Option<Thread>) -> Figures {
        let clusters = self.clusters();
        let mut figures = Vec::new();
        let thick = self.filled(BlobOptions::thick(clusters)).await?;
        let thin = self.filled(BlobOptions::thin(clusters)).await?;
        let thick_place = self.place(&thick).await?;
        let thin_place = self.place(&thin).await?;
        for (name, blob, place) in [("thick", &thick, &thick_place), ("thin, rewritten", &thin, &thin_place)]
        {
            for depth in [1, 32, 128] {
                for operation in [Operation::Read, Operation::Write] {
                    figures.push(self.steady(name, blob, place, Load { operation, depth }).await?);
                }
            }
        }
        if let Some(other) = other {
            for operation in [Operation::Read, Operation::Write] {
                figures.push(
                    self.on_two_cores(&thick, &thick_place, Load { operation, depth: 32 }, &other).await?,
                );
            }
            other.exit();
            other.joined().await;
        }
        figures.extend(self.chains().await?);
        thin.close().await?;
        thick.close().await?;
        figures.extend(filling::filling(self).await?);
        Ok(figures)
    }

    pub(super) fn clusters(&self) -> u64 {
        self.bytes / u64::from(self.store.cluster_size())
    }

    pub(super) async fn blob(&self, options: BlobOptions) -> Result<Blob, Failed> {
        let id = self.store.create_blob(options).await?;
        Ok(self.store.open_blob(id).await?)
    }

    /// A blob that has been written whole.
    pub(super) async fn filled(&self, options: BlobOptions) -> Result<Blob, Failed> {
        let blob = self.blob(options).await?;
        let mut at = 0;
        fly(self.bytes >> 20, &mut buffers(4, 1 << 20), |buffers| {
            at += 1 << 20;
            blob.write(at - (1 << 20), buffers)
        })
        .await?;
        blob.flush().await?;
        Ok(blob)
    }

    fn pattern(&self, seed: u64) -> Result<Pattern, Failed> {
        let geometry = Geometry::new(BLOCK, self.bytes / u64::from(BLOCK))?;
        Pattern::random(&geometry, BLOCK.into(), seed).map_err(|kind| format!("{kind:?}").into())
    }

    /// Where on the disk a blob that was just filled lies: its bare yardstick uses the same bytes, as some
    /// memory is slower than other, and so are some of a file's extents.
    async fn place(&self, blob: &Blob) -> Result<Place, Failed> {
        let size = u64::from(self.store.cluster_size());
        let stamp = |cluster: u64| IoBuf::copy_from(&[cluster as u8 + 1; BLOCK as usize]);
        for cluster in 0..self.clusters() {
            blob.write(cluster * size, stamp(cluster)).await.0?;
        }
        let mut found = vec![None; self.clusters() as usize];
        for at in (0..self.bare).step_by(size as usize) {
            let (result, buffers) = self.channel.read(at, IoBuf::zeroed(BLOCK as usize)).await;
            result?;
            let head = buffers.to_vec();
            let stamped = head.iter().all(|&byte| byte == head[0]).then(|| usize::from(head[0]));
            let cluster = stamped.and_then(|stamp| stamp.checked_sub(1));
            if let Some(place) = cluster.and_then(|cluster| found.get_mut(cluster)) {
                *place = Some(at);
            }
        }
        // So that no old contents are found.
        for cluster in 0..self.clusters() {
            blob.write(cluster * size, IoBuf::zeroed(BLOCK as usize)).await.0?;
        }
        let clusters: Option<Arc<[u64]>> = found.into_iter().collect();
        let clusters = clusters.ok_or("a blob's clusters were not found on the disk")?;
        Ok(Place { clusters, shift: size.ilog2() })
    }

    /// A blob beside the bare disk, in the blob's place.
    async fn steady(&self, name: &str, blob: &Blob, place: &Place, load: Load) -> Result<Figure, Failed> {
        let what = format!("{name}: {load}");
        self.effort.progress.at(&what);
        let pairs = Pairs::start(what, format!("bare disk: {load}"));
        let requests = self.requests(place, load).await?;
        // Different blocks: the second side would find those of the first in the cache.
        let (mut own, mut bare) = (self.pattern(1)?, self.pattern(2)?);
        let pairs = pairs
            .measure(
                self.effort,
                async || self.timed(requests, on_blob(blob, load, &mut own, requests)).await,
                async || {
                    let work = on_disk(&self.channel, place, load, &mut bare, requests);
                    self.timed(requests, work).await
                },
            )
            .await?;
        Ok(with_block(pairs.figure()).at_least(aims::BLOB_SPEED))
    }

    /// Times requests that one core makes.
    async fn timed(&self, requests: u64, work: impl Future<Output = Result<(), Failed>>) -> Timed {
        match self.by_cpu {
            true => timed_by_cpu(requests, work).await,
            false => timed(requests, work).await,
        }
    }

    /// How many requests of the bare disk fill a round.
    async fn requests(&self, place: &Place, load: Load) -> Result<u64, Failed> {
        if self.effort.quick {
            return Ok(64);
        }
        let mut pattern = self.pattern(7)?;
        on_disk(&self.channel, place, load, &mut pattern, 256).await?;
        let (requests, ns) = timed(512, on_disk(&self.channel, place, load, &mut pattern, 512)).await?;
        Ok((requests * ROUND_NS / ns.max(1)).clamp(64, 1 << 20))
    }

    /// The same on two cores at once, each half of the requests.
    async fn on_two_cores(
        &self,
        blob: &Blob,
        place: &Place,
        load: Load,
        other: &Thread,
    ) -> Result<Figure, Failed> {
        let what = format!("thick, two cores: {load}");
        self.effort.progress.at(&what);
        let requests = self.requests(place, load).await?;
        // Different seeds in every round, as above.
        let seeds = Cell::new(0);
        let patterns = || -> Result<(Pattern, Pattern), Failed> {
            let seed = seeds.replace(seeds.get() + 2);
            Ok((self.pattern(seed)?, self.pattern(seed + 1)?))
        };
        let own = async || -> Timed {
            let (mut here, mut there) = patterns()?;
            let far = blob.clone();
            let start = clock::wall_ns();
            let half = other.spawn(async move || on_blob(&far, load, &mut there, requests).await);
            on_blob(blob, load, &mut here, requests).await?;
            half.await??;
            Ok((2 * requests, clock::wall_ns() - start))
        };
        let yardstick = async || -> Timed {
            let (mut here, mut there) = patterns()?;
            let (device, far) = (self.device.clone(), place.clone());
            let start = clock::wall_ns();
            let half = other.spawn(async move || -> Result<(), Failed> {
                let channel = Channel::open(device)?;
                on_disk(&channel, &far, load, &mut there, requests).await
            });
            on_disk(&self.channel, place, load, &mut here, requests).await?;
            half.await??;
            Ok((2 * requests, clock::wall_ns() - start))
        };
        let pairs = Pairs::start(what, format!("bare disk, two cores: {load}"));
        let pairs = pairs.measure(self.effort, own, yardstick).await?;
        Ok(with_block(pairs.figure()).at_least(aims::BLOB_SPEED))
    }

    /// Reads of data under several snapshots, beside the bare disk; the longest chain beside the shortest,
    /// too.
    async fn chains(&self) -> Figures {
        let load = Load { operation: Operation::Read, depth: 32 };
        let mut figures = Vec::new();
        let mut one = None;
        for depth in [0, 1, 8, 64] {
            let blob = self.filled(BlobOptions::thin(self.clusters())).await?;
            let place = self.place(&blob).await?;
            for _ in 0..depth {
                self.store.snapshot(blob.id(), Vec::new()).await?;
            }
            let plural = if depth == 1 { "" } else { "s" };
            figures.push(self.steady(&format!("under {depth} snapshot{plural}"), &blob, &place, load).await?);
            match depth {
                1 => one = Some((blob, place)),
                64 => {
                    if let Some((one, place)) = one.take() {
                        figures.push(self.side_by_side(&blob, &one, &place, load).await?);
                        one.close().await?;
                    }
                    blob.close().await?;
                }
                _ => blob.close().await?,
            }
        }
        Ok(figures)
    }

    /// A chain of 64 beside a chain of 1.
    async fn side_by_side(
        &self,
        long: &Blob,
        short: &Blob,
        place: &Place,
        load: Load,
    ) -> Result<Figure, Failed> {
        let requests = self.requests(place, load).await?;
        let (mut own, mut other) = (self.pattern(1)?, self.pattern(2)?);
        let pairs = Pairs::start(format!("under 64 snapshots, beside 1: {load}"), "under 1 snapshot");
        let pairs = pairs
            .measure(
                self.effort,
                async || self.timed(requests, on_blob(long, load, &mut own, requests)).await,
                async || self.timed(requests, on_blob(short, load, &mut other, requests)).await,
            )
            .await?;
        Ok(with_block(pairs.figure()).at_least(aims::CHAIN_SPEED))
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let operation = if self.operation == Operation::Write { "write" } else { "read" };
        write!(f, "4 KiB {operation}, depth {}", self.depth)
    }
}

fn with_block(figure: Figure) -> Figure {
    Figure { bytes_per_op: Some(BLOCK.into()), ..figure }
}

async fn on_blob(blob: &Blob, load: Load, pattern: &mut Pattern, requests: u64) -> Result<(), Failed> {
    let channel = blob.channel()?;
    let mut idle = buffers(load.depth, BLOCK as usize);
    let mut next = || pattern.next_start() * u64::from(BLOCK);
    match load.operation {
        Operation::Write => fly(requests, &mut idle, |buffers| channel.write(next(), buffers)).await,
        _ => fly(requests, &mut idle, |buffers| channel.read(next(), buffers)).await,
    }
}

async fn on_disk(
    channel: &Channel,
    place: &Place,
    load: Load,
    pattern: &mut Pattern,
    requests: u64,
) -> Result<(), Failed> {
    let mut idle = buffers(load.depth, BLOCK as usize);
    let mut next = || place.of(pattern.next_start() * u64::from(BLOCK));
    match load.operation {
        Operation::Write => fly(requests, &mut idle, |buffers| channel.write(next(), buffers)).await,
        _ => fly(requests, &mut idle, |buffers| channel.read(next(), buffers)).await,
    }
}
