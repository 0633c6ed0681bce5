//! Stores to damage: moments in the history of a workload, and images that SPDK wrote.

use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;

use spindle_blob::ExternalSource;
use spindle_blob::ordering::Order;
use spindle_engine::sim::{DiskOptions, Image, Moment, Operation, Rng};
use spindle_format::check::{Finding, Medium, check, load};
use spindle_format::{PAGE_SIZE, Store};

use super::contents::Ground;
use crate::context::Point;
use crate::external;
use crate::profile::Profile;
use crate::session::{self, Plan, Start};

/// Operations on metadata in a store's history.
const CHANGES: u32 = 25;

/// Operations on data for each of its tasks.
const IO: u32 = 6;

/// Larger images are damaged less often.
const LARGE: u64 = 100 << 20;

/// An image that SPDK wrote.
pub struct Fixture {
    /// Its file name.
    pub name: String,
    /// The image.
    pub image: Image,
    /// Earlier images of the same store.
    pub earlier: Vec<Image>,
}

impl Fixture {
    /// Reads an image from a reader of its bytes.
    ///
    /// # Errors
    /// An error of the reader.
    pub fn read(name: String, bytes: &mut dyn Read) -> std::io::Result<Fixture> {
        let (mut chunk, mut chunks) = (vec![0; 1 << 20], Vec::new());
        loop {
            let mut filled = 0;
            while filled < chunk.len() {
                match bytes.read(&mut chunk[filled..])? {
                    0 => break,
                    more => filled += more,
                }
            }
            if filled == 0 {
                break;
            }
            // A page of zeroes takes no space in an image, nor here.
            let is_zero = chunk[..filled].iter().all(|byte| *byte == 0);
            chunks.push((filled, (!is_zero).then(|| chunk[..filled].to_vec())));
        }
        let mut image = Image::zeroed(chunks.iter().map(|(length, _)| *length as u64).sum());
        let mut at = 0;
        for (length, bytes) in chunks {
            for (page, offset) in
                bytes.iter().flat_map(|bytes| bytes.chunks(PAGE_SIZE)).zip((at..).step_by(PAGE_SIZE))
            {
                if page.iter().any(|byte| *byte != 0) {
                    image.write(offset, page);
                }
            }
            at += length as u64;
        }
        Ok(Fixture { name, image, earlier: Vec::new() })
    }
}

/// The source of a seed's stores.
pub enum Source {
    /// A run of the workload.
    Workload {
        /// Its disk and store.
        profile: Box<Profile>,
        /// The moments of the run.
        points: Vec<Point>,
    },
    /// One image.
    Fixture {
        /// Its file name.
        name: String,
        /// The image with its checksums.
        ground: Rc<Ground>,
        /// Earlier images of the same store.
        earlier: Vec<Image>,
    },
}

/// A store before it is damaged: unloaded, or cut off in the middle of an operation.
pub struct Base {
    /// Its name in reports.
    pub about: String,
    /// Its image.
    pub image: Image,
    /// Earlier images of the same disk, oldest first, each with the operation that followed if that is known.
    pub earlier: Vec<(Image, Option<Moment>)>,
    /// The store as the format's loader describes it.
    pub store: Store,
    /// The findings of a check: only those that a crash can leave.
    pub findings: Vec<Finding>,
    /// Bytes of a block of the device.
    pub block: u32,
    /// Bytes that the device never tears.
    pub atomic_unit: u32,
    /// Finds external snapshots.
    pub external: Option<ExternalSource>,
    /// Checksums of its clusters.
    pub ground: Rc<Ground>,
}

impl Source {
    /// The history of a seed's workload.
    pub fn of_workload(seed: u64) -> Source {
        let profile = Profile { failing: false, ..Profile::of(seed, None) };
        let order = Order::STRICT;
        let plan =
            Plan { seed, profile: profile.clone(), order, start: Start::Fresh, changes: CHANGES, io: IO };
        let points = session::run(plan).history.points;
        Source::Workload { profile: Box::new(profile), points }
    }

    /// Uses an image that SPDK wrote.
    pub fn of_fixture(fixture: &Fixture) -> Source {
        let Fixture { name, image, earlier } = fixture;
        Source::Fixture { name: name.clone(), ground: ground(image, 512), earlier: earlier.clone() }
    }

    /// True if looking at an image takes long.
    pub fn is_large(&self) -> bool {
        matches!(self, Source::Fixture { ground, .. } if ground.image().size() > LARGE)
    }

    /// Picks one store. Returns `None` if there is none.
    pub fn base(&self, rng: &mut Rng) -> Option<Base> {
        match self {
            Source::Fixture { name, ground, earlier } => {
                let image = ground.image();
                let (store, findings) = in_order(image, 512)?;
                Some(Base {
                    about: name.clone(),
                    image: image.clone(),
                    earlier: earlier.iter().map(|image| (image.clone(), None)).collect(),
                    block: 512,
                    atomic_unit: 512,
                    external: None,
                    ground: ground.clone(),
                    store,
                    findings,
                })
            }
            Source::Workload { profile, points } => {
                // Few moments of a history are those of an unloaded store.
                let clean: Vec<usize> =
                    (0..points.len()).filter(|at| is_clean(points[*at].state.visible())).collect();
                let at = match clean.is_empty() || rng.below(2) == 0 {
                    true if points.is_empty() => return None,
                    true => rng.below(points.len()),
                    false => clean[rng.below(clean.len())],
                };
                let image = points[at].state.visible().clone();
                let (store, findings) = in_order(&image, profile.block)?;
                let bytes = |which| external::bytes(which, profile.cluster, profile.block);
                let outside = (0..external::COUNT).map(|which| (external::id(which), bytes(which)));
                let ground = Ground::new(image.clone(), profile.cluster.into(), outside.collect());
                let earlier = points[..at].iter();
                let earlier = earlier.map(|point| (point.state.visible().clone(), Some(point.moment)));
                Some(Base {
                    about: format!("moment {at} of {}", points.len()),
                    earlier: earlier.collect(),
                    block: profile.block,
                    atomic_unit: profile.known_atomic_unit(),
                    external: Some(external::source(profile)),
                    ground: Rc::new(ground),
                    image,
                    store,
                    findings,
                })
            }
        }
    }
}

/// Prepares the checksums of the clusters of an image that holds a store.
fn ground(image: &Image, block: u32) -> Rc<Ground> {
    let cluster =
        load(&OnImage { image, block }, false).map_or(1 << 20, |store| store.geometry.cluster_size());
    Rc::new(Ground::new(image.clone(), cluster.into(), BTreeMap::new()))
}

/// Loads the store of an image. Returns `None` if it has findings that a crash cannot leave.
fn in_order(image: &Image, block: u32) -> Option<(Store, Vec<Finding>)> {
    let store = load(&OnImage { image, block }, false).ok()?;
    let findings = check(&store);
    findings.iter().all(|finding| matches!(finding, Finding::Pending(_))).then_some((store, findings))
}

fn is_clean(image: &Image) -> bool {
    let mut page = [0; PAGE_SIZE];
    image.read(0, &mut page);
    spindle_format::SuperBlock::parse(&page).is_ok_and(|block| block.clean)
}

impl Base {
    /// Wraps an image of this device for a checker.
    pub fn medium<'a>(&self, image: &'a Image) -> OnImage<'a> {
        OnImage { image, block: self.block }
    }

    /// Options for a disk that holds an image.
    pub fn disk(&self, image: &Image) -> DiskOptions {
        DiskOptions { block: self.block, atomic_unit: self.atomic_unit, ..DiskOptions::new(image.size()) }
    }

    /// The offset where the data of its blobs begins.
    pub fn metadata_end(&self) -> u64 {
        let (start, length) = self.store.geometry.bytes_of(self.store.geometry.metadata());
        start + length
    }

    /// Picks a write whose loss would change the image. Returns its offset and the bytes that were there
    /// before.
    pub fn lost_write(&self, rng: &mut Rng) -> Option<(u64, Vec<u8>)> {
        for _ in 0..20 {
            let (image, moment) = self.earlier.get(rng.below(self.earlier.len().max(1)))?;
            let Some(Moment { operation, offset, length, .. }) = *moment else { continue };
            if operation == Operation::Flush || length == 0 || offset >= self.metadata_end() {
                continue;
            }
            let (mut before, mut now) = (vec![0; length as usize], vec![0; length as usize]);
            image.read(offset, &mut before);
            self.image.read(offset, &mut now);
            if before != now {
                return Some((offset, before));
            }
        }
        None
    }
}

/// An image as a checker reads it.
pub struct OnImage<'a> {
    image: &'a Image,
    block: u32,
}

impl Medium for OnImage<'_> {
    fn bytes(&self) -> u64 {
        self.image.size()
    }

    fn block_size(&self) -> u32 {
        self.block
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let inside = offset.checked_add(into.len() as u64).is_some_and(|end| end <= self.image.size());
        if inside {
            self.image.read(offset, into);
        }
        inside
    }
}
