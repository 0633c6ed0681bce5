//! What the volumes of a daemon may be after it was killed: for each block what was acknowledged last and what was
//! asked for since, and which volumes there are.

use std::collections::BTreeMap;
use std::ops::Range;

pub const BLOCK: u64 = 4096;

/// What a block may hold: a word, over and over.
#[derive(Clone, Default)]
pub struct Block {
    /// What was acknowledged last.
    sure: u64,
    /// What was asked for since and not acknowledged.
    begun: Vec<u64>,
}

/// A volume, or what may be one.
#[derive(Clone)]
pub struct Volume {
    pub blocks: Vec<Block>,
    /// Sizes in MiB, of which it has one.
    pub mib: Vec<u64>,
    /// It is there; else it may be there.
    pub sure: bool,
    /// It may have this name instead.
    other_name: Option<String>,
    /// A snapshot of this volume that is being taken: writes may be in it.
    taken_of: Option<String>,
}

/// All volumes, by name.
#[derive(Default)]
pub struct Model {
    pub volumes: BTreeMap<String, Volume>,
}

impl Model {
    fn volume(&mut self, name: &str) -> &mut Volume {
        self.volumes.get_mut(name).unwrap_or_else(|| panic!("{name} is known"))
    }

    pub fn writing(&mut self, name: &str, blocks: Range<usize>, value: u64) {
        for (other, volume) in &mut self.volumes {
            if other == name || volume.taken_of.as_deref() == Some(name) {
                volume.blocks[blocks.clone()].iter_mut().for_each(|block| block.begun.push(value));
            }
        }
    }

    /// No other write of these blocks is under way.
    pub fn written(&mut self, name: &str, blocks: Range<usize>, value: u64) {
        self.volume(name).blocks[blocks].fill(Block { sure: value, begun: Vec::new() });
    }

    pub fn creating(&mut self, name: &str, mib: u64, blocks: usize) {
        let blocks = vec![Block::default(); blocks];
        let volume = Volume { blocks, mib: vec![mib], sure: false, other_name: None, taken_of: None };
        self.volumes.insert(name.to_owned(), volume);
    }

    /// A copy of a volume is being made: of a snapshot, or a snapshot.
    pub fn copying(&mut self, from: &str, to: &str) {
        let mut copy = self.volume(from).clone();
        copy.sure = false;
        copy.taken_of = Some(from.to_owned());
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
    pub fn agree(&mut self, found: &BTreeMap<String, u64>, round: &str) {
        let mut agreed = BTreeMap::new();
        for (name, mut volume) in std::mem::take(&mut self.volumes) {
            let names: Vec<String> = [name.clone()].into_iter().chain(volume.other_name.take()).collect();
            let there: Vec<&String> = names.iter().filter(|name| found.contains_key(*name)).collect();
            match there[..] {
                [name] => {
                    let mib = found[name];
                    assert!(volume.mib.contains(&mib), "{round}: {name} has {mib} MiB, not {:?}", volume.mib);
                    (volume.mib, volume.sure, volume.taken_of) = (vec![mib], true, None);
                    agreed.insert(name.clone(), volume);
                }
                [] => assert!(!volume.sure, "{round}: {name} is gone"),
                _ => panic!("{round}: {name} is there by both of its names"),
            }
        }
        for name in found.keys() {
            assert!(agreed.contains_key(name), "{round}: {name} is there and should not be");
        }
        self.volumes = agreed;
    }

    /// What a volume holds is what it may hold, and each block is one of those as a whole; from now on it is that.
    pub fn holds(&mut self, name: &str, bytes: &[u8], round: &str) {
        let volume = self.volume(name);
        for (at, (block, bytes)) in volume.blocks.iter_mut().zip(bytes.chunks(BLOCK as usize)).enumerate() {
            let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(bytes.chunks(8).all(|word| word == &bytes[..8]), "{round}: block {at} of {name} is torn");
            assert!(
                found == block.sure || block.begun.contains(&found),
                "{round}: block {at} of {name} holds {found:#x}, not {:#x} or one of {:x?}",
                block.sure,
                block.begun
            );
            *block = Block { sure: found, begun: Vec::new() };
        }
    }
}
