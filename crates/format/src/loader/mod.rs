//! Loading without I/O: the loader asks for byte ranges, takes bytes, and ends with a [`Store`].
//!
//! ```
//! use spindle_format::{LoadError, LoadOptions, Loader, Store};
//!
//! fn load(image: &[u8]) -> Result<Store, LoadError> {
//!     let mut loader = Loader::new(image.len() as u64, LoadOptions::default());
//!     while let Some(range) = loader.next_read() {
//!         let start = range.offset as usize;
//!         loader.supply(range, &image[start..start + range.len]);
//!     }
//!     loader.finish()
//! }
//! let error = load(&[0; 4096]).expect_err("there is no store in zeroes");
//! assert!(error.to_string().starts_with("super block at byte 0: signature is 0x0"));
//! ```
//!
//! Many reads may be in flight: call [`Loader::next_read`] until it has no more, supply results in any order,
//! and ask again. When it has no more and nothing is in flight, call [`Loader::finish`], or, where nothing
//! may take long, [`Loader::assemble`].
//!
//! A clean store is read by its masks, and the first pages that they call free, where blobs newer than the masks
//! would lie; a dirty one (or an old one without the mask of blob ids, or one with unusable masks) by reading every
//! metadata page. Of a page only its descriptors are kept, without the zeroes after them, and nothing of a free page.

mod assemble;
mod halfdone;
mod outcome;
mod pace;
mod records;
mod scan;
mod torn;

use crate::error::{FormatError, Place, Problem};
use crate::geometry::Geometry;
use crate::page::PAGE_SIZE;
use crate::store::Store;
use crate::super_block::{BsType, SuperBlock};
use pace::Pace;
use scan::Scan;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A range of an image in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: usize,
}

/// How to load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadOptions {
    /// Block size of the device in bytes: reads begin and end at multiples of it. 512 by default.
    pub block_size: u32,
    /// The store must carry this type; any by default.
    pub bs_type: Option<BsType>,
    /// Ignore the masks of a clean store and read all metadata.
    pub force_recover: bool,
    /// The largest read in bytes; 1 MiB by default. A read is never smaller than a metadata page.
    pub max_read: usize,
    /// True if a crash leaves a page of 4096 bytes wholly old or wholly new: repairs then do without copies of pages
    /// where no page is free for them. False by default.
    pub whole_pages: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            block_size: 512,
            bs_type: None,
            force_recover: false,
            max_read: 1 << 20,
            whole_pages: false,
        }
    }
}

/// Why a store cannot be loaded at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The super block or its layout is wrong.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The store belongs to another program.
    #[error("the store's type is {found:?}, not {wanted:?} as asked: give {found:?} or no type")]
    WrongType {
        /// The type on disk.
        found: BsType,
        /// The type asked for.
        wanted: BsType,
    },
    /// The device's blocks are larger than the store's metadata pages, which therefore could not be written
    /// one by one.
    #[error(
        "the device has blocks of {block_size} bytes, the store metadata pages of {md_page_size}: it was made on a device with smaller blocks and needs one"
    )]
    BlockSize {
        /// Bytes of a block.
        block_size: u32,
        /// Bytes of a metadata page.
        md_page_size: u32,
    },
    /// `finish` was called before everything was read.
    #[error("the store was not read completely: supply every range that next_read names")]
    Unfinished,
}

impl LoadError {
    /// The bytes that the store needs, if it was not loaded because the device has only `device_bytes`. A load that
    /// is told of so many bytes, with failed reads after the device's end, shows what is left.
    pub fn cut_short(&self, device_bytes: u64) -> Option<u64> {
        let LoadError::Format(FormatError { place: Place::SuperBlock, problem }) = self else { return None };
        match problem {
            Problem::Field { field: "size", found, .. } => Some(*found).filter(|whole| *whole > device_bytes),
            _ => None,
        }
    }
}

/// Turns bytes of an image into a [`Store`]. Does no I/O.
#[derive(Debug)]
pub struct Loader {
    device_bytes: u64,
    options: LoadOptions,
    phase: Phase,
}

type Work = Pin<Box<dyn Future<Output = Result<Store, LoadError>>>>;

/// A store that is being assembled from what was read.
pub struct Assembly {
    work: Work,
    pace: Rc<Pace>,
    total: u64,
}

impl Assembly {
    /// Does the next step, about a millisecond of work however large the store is; `None` if it was not the
    /// last. Must not be called after the last.
    ///
    /// # Errors
    /// As [`Loader::finish`].
    pub fn step(&mut self) -> Option<Result<Store, LoadError>> {
        match self.work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Units of work done, and their known total; the units have no other meaning.
    pub fn progress(&self) -> (u64, u64) {
        let done = self.pace.done();
        (done, self.total.max(done))
    }
}

impl std::fmt::Debug for Assembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Assembly({:?})", self.progress())
    }
}

#[derive(Debug)]
enum Phase {
    /// The super block was not asked for yet.
    Start,
    /// The super block is being read.
    SuperBlock,
    /// Masks and metadata pages are being read.
    Scan(Box<Scan>),
    Failed(LoadError),
}

/// A usable super block, and how it was obtained.
#[derive(Clone, Debug)]
struct Super {
    block: SuperBlock,
    geometry: Geometry,
    torn: bool,
}

impl Loader {
    /// A loader for an image or device of `device_bytes` bytes.
    pub fn new(device_bytes: u64, options: LoadOptions) -> Loader {
        Loader { device_bytes, options, phase: Phase::Start }
    }

    /// The next range to read, each returned once; `None` if nothing more is wanted until a read in flight
    /// has come back, or at all.
    pub fn next_read(&mut self) -> Option<ByteRange> {
        match &mut self.phase {
            Phase::Start if self.device_bytes < PAGE_SIZE as u64 => {
                let problem = Problem::TooShort { needed: PAGE_SIZE as u64, found: self.device_bytes };
                self.phase = Phase::Failed(problem.at(Place::SuperBlock).into());
                None
            }
            Phase::Start => {
                self.phase = Phase::SuperBlock;
                let len = PAGE_SIZE.next_multiple_of(self.options.block_size.clamp(512, 1 << 20) as usize);
                Some(ByteRange { offset: 0, len: (len as u64).min(self.device_bytes) as usize })
            }
            Phase::Scan(scan) => scan.next_read(),
            Phase::SuperBlock | Phase::Failed(_) => None,
        }
    }

    /// The bytes of a range from [`Loader::next_read`]. If there are fewer than asked for, the rest counts as
    /// unreadable.
    pub fn supply(&mut self, range: ByteRange, bytes: &[u8]) {
        match &mut self.phase {
            Phase::SuperBlock => self.phase = self.begin(bytes),
            Phase::Scan(scan) => scan.supply(range, bytes),
            Phase::Start | Phase::Failed(_) => {}
        }
    }

    /// The device could not read a range: structures in it count as damaged.
    pub fn read_failed(&mut self, range: ByteRange) {
        match &mut self.phase {
            Phase::SuperBlock => {
                self.phase = Phase::Failed(Problem::Unreadable.at(Place::SuperBlock).into());
            }
            Phase::Scan(scan) => scan.supply(range, &[]),
            Phase::Start | Phase::Failed(_) => {}
        }
    }

    /// Bytes of masks and metadata that were read, and their known total.
    pub fn progress(&self) -> (u64, u64) {
        match &self.phase {
            Phase::Scan(scan) => scan.progress(),
            _ => (0, 0),
        }
    }

    /// Assembles the store in one go.
    ///
    /// # Errors
    /// The super block cannot be used, the store is of another type, or not everything was supplied.
    pub fn finish(self) -> Result<Store, LoadError> {
        let mut assembly = self.assemble();
        loop {
            if let Some(result) = assembly.step() {
                return result;
            }
        }
    }

    /// Assembles the store step by step.
    pub fn assemble(mut self) -> Assembly {
        let more_wanted = self.next_read().is_some();
        let pace = Rc::new(Pace::default());
        let (total, work): (u64, Work) = match self.phase {
            Phase::Failed(error) => (0, Box::pin(async { Err(error) })),
            Phase::Scan(scan) if !more_wanted && scan.is_complete() => {
                let (total, pace) = (outcome::units(&scan), pace.clone());
                (total, Box::pin(async move { Ok(outcome::build(*scan, &pace).await) }))
            }
            _ => (0, Box::pin(async { Err(LoadError::Unfinished) })),
        };
        Assembly { work, pace, total }
    }

    fn begin(&self, bytes: &[u8]) -> Phase {
        match self.judge(bytes) {
            Ok(found) => Phase::Scan(Box::new(Scan::new(found, &self.options))),
            Err(error) => Phase::Failed(error),
        }
    }

    fn judge(&self, bytes: &[u8]) -> Result<Super, LoadError> {
        let (block, torn) = match SuperBlock::parse(bytes) {
            Ok(block) => (block, false),
            Err(error) => match torn::untear_super_block(bytes, self.device_bytes) {
                Some(block) => (block, true),
                None => return Err(error.into()),
            },
        };
        if let Some(wanted) = self.options.bs_type
            && wanted != block.bs_type
        {
            return Err(LoadError::WrongType { found: block.bs_type, wanted });
        }
        let geometry = Geometry::from_super(&block, self.device_bytes)?;
        let (block_size, md_page_size) = (self.options.block_size, geometry.md_page_size());
        if block_size > md_page_size {
            return Err(LoadError::BlockSize { block_size, md_page_size });
        }
        Ok(Super { block, geometry, torn })
    }
}
