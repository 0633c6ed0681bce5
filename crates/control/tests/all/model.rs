//! What the volumes of a daemon are while it runs, and what a crash of the disk may leave of them.

use std::collections::BTreeMap;
use std::ops::Range;

pub const SECTOR: usize = 512;

/// A sector holds one word over and over.
#[derive(Clone)]
struct Sector {
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

/// A volume, or what may be one.
#[derive(Clone)]
struct Volume {
    sectors: Vec<Sector>,
    /// Sizes in MiB, of which it has one.
    mib: Vec<u64>,
    /// It is there; else it may be there.
    sure: bool,
    /// It may have this name instead.
    other_name: Option<String>,
    /// A copy of this volume that is being made: what is written there may be in it.
    taken_of: Option<String>,
}

/// All volumes, by name.
#[derive(Clone, Default)]
pub struct Model {
    volumes: BTreeMap<String, Volume>,
    next: u64,
}

impl Model {
    fn stamp(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn volume(&mut self, name: &str) -> &mut Volume {
        self.volumes.get_mut(name).unwrap_or_else(|| panic!("{name} is known"))
    }

    /// Names, with how many sectors are known.
    pub fn names(&self) -> Vec<(String, usize)> {
        self.volumes.iter().map(|(name, volume)| (name.clone(), volume.sectors.len())).collect()
    }

    pub fn writing(&mut self, name: &str, sectors: Range<usize>, value: u64) {
        let stamp = self.stamp();
        for (other, volume) in &mut self.volumes {
            if other == name || volume.taken_of.as_deref() == Some(name) {
                for sector in &mut volume.sectors[sectors.clone()] {
                    sector.open = true;
                    sector.left.push((stamp, value));
                }
            }
        }
    }

    /// No other write of these sectors is under way.
    pub fn written(&mut self, name: &str, sectors: Range<usize>, durable: bool) {
        for sector in &mut self.volume(name).sectors[sectors] {
            let &(stamp, value) = sector.left.last().expect("there is always one");
            (sector.now, sector.stamp, sector.open) = (value, stamp, false);
            if durable {
                sector.left = vec![(stamp, value)];
            }
        }
    }

    /// What a flush that is asked for now makes durable.
    pub fn floor(&self, name: &str) -> Vec<u64> {
        self.volumes[name].sectors.iter().map(|sector| sector.stamp).collect()
    }

    pub fn flushed(&mut self, name: &str, floor: &[u64]) {
        for (sector, floor) in self.volume(name).sectors.iter_mut().zip(floor) {
            // What was acknowledged by then, or what came over it since.
            sector.left.retain(|(stamp, _)| stamp >= floor);
        }
    }

    /// What was read when no write of these sectors was under way; they stay as they are.
    pub fn reads(&mut self, name: &str, sectors: Range<usize>, bytes: &[u8]) {
        let stamp = self.stamp();
        for (at, bytes) in sectors.zip(bytes.chunks(SECTOR)) {
            let value = word(name, at, bytes);
            let sector = &mut self.volume(name).sectors[at];
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
        let sectors = std::mem::take(&mut self.volume(name).sectors);
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
        self.volume(name).sectors = fixed;
    }

    pub fn creating(&mut self, name: &str, mib: u64, sectors: usize) {
        let sectors = vec![Sector::fixed(0, 0); sectors];
        let volume = Volume { sectors, mib: vec![mib], sure: false, other_name: None, taken_of: None };
        self.volumes.insert(name.to_owned(), volume);
    }

    /// A copy of a volume is being made: a snapshot, or a clone of one.
    pub fn copying(&mut self, from: &str, to: &str) {
        let mut copy = self.volume(from).clone();
        (copy.sure, copy.taken_of) = (false, Some(from.to_owned()));
        self.volumes.insert(to.to_owned(), copy);
    }

    pub fn made(&mut self, name: &str) {
        let volume = self.volume(name);
        (volume.sure, volume.taken_of) = (true, None);
    }

    pub fn deleting(&mut self, name: &str) {
        self.volume(name).sure = false;
    }

    pub fn deleted(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    pub fn renaming(&mut self, from: &str, to: &str) {
        self.volume(from).other_name = Some(to.to_owned());
    }

    pub fn renamed(&mut self, from: &str) {
        let mut volume = self.volumes.remove(from).expect("it was renamed");
        let name = volume.other_name.take().expect("it was being renamed");
        self.volumes.insert(name, volume);
    }

    pub fn resizing(&mut self, name: &str, mib: u64) {
        self.volume(name).mib.push(mib);
    }

    pub fn resized(&mut self, name: &str) {
        let mib = &mut self.volume(name).mib;
        *mib = mib.split_off(mib.len() - 1);
    }

    /// The volumes that are there are those that may be there, in sizes that they may have; from now on they are that.
    pub fn agree(&mut self, found: &BTreeMap<String, u64>) {
        let mut agreed = BTreeMap::new();
        for (name, mut volume) in std::mem::take(&mut self.volumes) {
            let names: Vec<String> = [name.clone()].into_iter().chain(volume.other_name.take()).collect();
            let there: Vec<&String> = names.iter().filter(|name| found.contains_key(*name)).collect();
            match there[..] {
                [name] => {
                    let mib = found[name];
                    assert!(volume.mib.contains(&mib), "{name} has {mib} MiB, not {:?}", volume.mib);
                    (volume.mib, volume.sure, volume.taken_of) = (vec![mib], true, None);
                    agreed.insert(name.clone(), volume);
                }
                [] => assert!(!volume.sure, "{name} is gone"),
                _ => panic!("{name} is there by both of its names"),
            }
        }
        for name in found.keys() {
            assert!(agreed.contains_key(name), "{name} is there and should not be");
        }
        self.volumes = agreed;
    }
}

/// The word of a sector, which is whole.
fn word(name: &str, at: usize, bytes: &[u8]) -> u64 {
    assert!(bytes.chunks(8).all(|word| word == &bytes[..8]), "sector {at} of {name} is torn");
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}
