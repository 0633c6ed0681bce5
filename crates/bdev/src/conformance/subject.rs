//! The bdev under test: its channel, and the steps shared by most rules.

use spindle_block::{Channel, Geometry, IoErrorKind, Operation};
use spindle_mem::{Buffers, IoBuf};

use super::Contents;
use crate::{Bdev, BdevError, Desc, LocalFuture};

/// The result of a rule; an error describes what was observed.
pub(super) type Held = Result<(), String>;

/// One rule.
pub(super) type Rule = for<'a> fn(&'a Subject) -> LocalFuture<'a, Held>;

/// Blocks that the rules use.
pub(super) const BLOCKS: u64 = 64;

/// Blocks of the largest requests that the rules make.
const MOST_AT_ONCE: u64 = 1024;

pub(super) struct Subject {
    pub(super) bdev: Bdev,
    pub(super) desc: Desc,
    pub(super) channel: Channel,
    pub(super) keeps: bool,
}

impl Subject {
    pub(super) fn open(bdev: &Bdev, contents: Contents) -> Result<Subject, BdevError> {
        let desc = Bdev::open(bdev.name())?;
        let channel = desc.channel()?;
        Ok(Subject { bdev: bdev.clone(), desc, channel, keeps: contents == Contents::Kept })
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.channel.geometry()
    }

    /// Numbers of blocks to try an operation without data with: a few, and one more than the device takes at once if
    /// there is room for it.
    pub(super) fn counts(&self, operation: Operation) -> Vec<u64> {
        let most = u64::from(self.geometry().most_of(operation));
        // Copied blocks lie twice in it, with others around them.
        let room = self.geometry().blocks().min(MOST_AT_ONCE).saturating_sub(16) / 2;
        [4].into_iter().chain((most < room).then_some(most + 1)).collect()
    }

    /// Returns the size of `blocks` blocks in bytes.
    pub(super) fn bytes(&self, blocks: u64) -> usize {
        (blocks << self.geometry().block_shift()) as usize
    }

    /// Returns the offset of a block in bytes.
    pub(super) fn at(&self, block: u64) -> u64 {
        block << self.geometry().block_shift()
    }

    /// Writes blocks that differ from each other and from those of another `seed`.
    pub(super) async fn write(&self, start: u64, blocks: u64, seed: u8) -> Held {
        let data = IoBuf::copy_from(&self.pattern(start, blocks, seed));
        let (written, _) = self.channel.write(self.at(start), data).await;
        written.map_err(|error| error.to_string())
    }

    /// Returns the bytes that [`write`](Self::write) stores.
    pub(super) fn pattern(&self, start: u64, blocks: u64, seed: u8) -> Vec<u8> {
        let shift = self.geometry().block_shift();
        let byte = |at: u64| (at >> shift) as u8 ^ (at as u8).rotate_left(3) ^ seed;
        (self.at(start)..self.at(start + blocks)).map(byte).collect()
    }

    /// Reads blocks, and compares them with `expected` if the bdev keeps its contents.
    pub(super) async fn expect(&self, start: u64, expected: &[u8]) -> Held {
        let (read, data) = self.channel.read(self.at(start), IoBuf::zeroed(expected.len())).await;
        read.map_err(|error| error.to_string())?;
        self.same(start, expected, &data)
    }

    pub(super) fn same(&self, start: u64, expected: &[u8], found: &Buffers) -> Held {
        let found = found.to_vec();
        let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
        match differs {
            _ if found.len() != expected.len() => {
                Err(format!("{} bytes came back of a request for {}", found.len(), expected.len()))
            }
            Some(at) if self.keeps => {
                Err(format!("byte {at} from block {start} on is {:#x}, not {:#x}", found[at], expected[at]))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the kind of error of a request that must fail.
pub(super) fn failed(what: &str, result: Result<(), spindle_block::IoError>) -> Result<IoErrorKind, String> {
    match result {
        Ok(()) => Err(format!("{what} succeeded")),
        Err(error) => Ok(error.kind),
    }
}
