//! What the volumes of a daemon are while it runs, and what a crash of the disk may leave of them.

use std::ops::{Deref, DerefMut, Range};

use crate::volumes::Volumes;

pub const SECTOR: usize = 512;

/// A sector holds one word over and over.
#[derive(Clone)]
pub struct Sector {
    /// What was acknowledged last, and when it was asked for.
    now: u64,
    stamp: u64,
    /// What was asked for since may be there already.
    open: bool,
    /// What a crash may leave, with when it was asked for: the oldest is durable.
    left: Vec<(u64, u64)>,
}

impl Sector {
    fn fixed(value: u64, stamp: u64) -> Sector {
        Sector { now: value, stamp, open: false, left: vec![(stamp, value)] }
    }

    fn may_read(&self, value: u64) -> bool {
        let open = |(stamp, left): &(u64, u64)| *stamp > self.stamp && *left == value;
        value == self.now || (self.open && self.left.iter().any(open))
    }

    fn may_survive(&self, value: u64) -> bool {
        self.left.iter().any(|(_, left)| *left == value)
    }
}

/// All volumes.
#[derive(Clone, Default)]
pub struct Model {
    volumes: Volumes<Sector>,
    next: u64,
}

impl Deref for Model {
    type Target = Volumes<Sector>;

    fn deref(&self) -> &Volumes<Sector> {
        &self.volumes
    }
}

impl DerefMut for Model {
    fn deref_mut(&mut self) -> &mut Volumes<Sector> {
        &mut self.volumes
    }
}

impl Model {
    fn stamp(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn writing(&mut self, name: &str, sectors: Range<usize>, value: u64) {
        let stamp = self.stamp();
        for pieces in self.pieces_and_copies(name) {
            for sector in &mut pieces[sectors.clone()] {
                sector.open = true;
                sector.left.push((stamp, value));
            }
        }
    }

    /// No other write of these sectors is under way.
    pub fn written(&mut self, name: &str, sectors: Range<usize>, durable: bool) {
        for sector in &mut self.pieces(name)[sectors] {
            let &(stamp, value) = sector.left.last().expect("there is always one");
            (sector.now, sector.stamp, sector.open) = (value, stamp, false);
            if durable {
                sector.left = vec![(stamp, value)];
            }
        }
    }

    /// What a flush that is asked for now makes durable.
    pub fn floor(&mut self, name: &str) -> Vec<u64> {
        self.pieces(name).iter().map(|sector| sector.stamp).collect()
    }

    pub fn flushed(&mut self, name: &str, floor: &[u64]) {
        for (sector, floor) in self.pieces(name).iter_mut().zip(floor) {
            // What was acknowledged by then, or what came over it since.
            sector.left.retain(|(stamp, _)| stamp >= floor);
        }
    }

    /// What was read when no write of these sectors was under way; they stay as they are.
    pub fn reads(&mut self, name: &str, sectors: Range<usize>, bytes: &[u8]) {
        let stamp = self.stamp();
        for (at, bytes) in sectors.zip(bytes.chunks(SECTOR)) {
            let value = word(name, at, bytes);
            let sector = &mut self.pieces(name)[at];
            assert!(
                sector.may_read(value),
                "sector {at} of {name} reads {value:#x}, not {:#x} or since then (open: {}) {:x?}",
                sector.now,
                sector.open,
                sector.left
            );
            if sector.open {
                sector.left.push((stamp, value));
                (sector.now, sector.stamp, sector.open) = (value, stamp, false);
            }
        }
    }

    /// What was read behind a crash; with `all`, only of the program and not of the disk. It is durable from now on.
    pub fn survived(&mut self, name: &str, bytes: &[u8], all: bool) {
        let stamp = self.stamp();
        let sectors = std::mem::take(self.pieces(name));
        let pieces = sectors.iter().zip(bytes.chunks(SECTOR)).enumerate();
        let fixed = pieces.map(|(at, (sector, bytes))| {
            let value = word(name, at, bytes);
            let may = if all { sector.may_read(value) } else { sector.may_survive(value) };
            assert!(
                may,
                "sector {at} of {name} holds {value:#x} behind the end (of the program only: {all}), not {:#x} (open: {}) or {:x?}",
                sector.now, sector.open, sector.left
            );
            Sector::fixed(value, stamp)
        });
        let fixed = fixed.collect();
        *self.pieces(name) = fixed;
    }

    pub fn creating(&mut self, name: &str, mib: u64, sectors: usize) {
        self.begin(name, mib, vec![Sector::fixed(0, 0); sectors]);
    }
}

/// The word of a sector, which is whole.
fn word(name: &str, at: usize, bytes: &[u8]) -> u64 {
    assert!(bytes.chunks(8).all(|word| word == &bytes[..8]), "sector {at} of {name} is torn");
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}
