//! What the volumes of a daemon may be after it was killed: for each block what was acknowledged last and what was
//! asked for since, and which volumes there are.

use std::ops::{Deref, DerefMut, Range};

use super::volumes::Volumes;

pub const BLOCK: u64 = 4096;

/// What a block may hold: a word, over and over.
#[derive(Clone, Default)]
pub struct Block {
    /// What was acknowledged last.
    sure: u64,
    /// What was asked for since and not acknowledged.
    begun: Vec<u64>,
}

/// All volumes.
#[derive(Default)]
pub struct Model(Volumes<Block>);

impl Deref for Model {
    type Target = Volumes<Block>;

    fn deref(&self) -> &Volumes<Block> {
        &self.0
    }
}

impl DerefMut for Model {
    fn deref_mut(&mut self) -> &mut Volumes<Block> {
        &mut self.0
    }
}

impl Model {
    pub fn writing(&mut self, name: &str, blocks: Range<usize>, value: u64) {
        for pieces in self.pieces_and_copies(name) {
            pieces[blocks.clone()].iter_mut().for_each(|block| block.begun.push(value));
        }
    }

    /// No other write of these blocks is under way.
    pub fn written(&mut self, name: &str, blocks: Range<usize>, value: u64) {
        self.pieces(name)[blocks].fill(Block { sure: value, begun: Vec::new() });
    }

    pub fn creating(&mut self, name: &str, mib: u64, blocks: usize) {
        self.begin(name, mib, vec![Block::default(); blocks]);
    }

    /// What a volume holds is what it may hold, and each block is one of those as a whole; from now on it is that.
    pub fn holds(&mut self, name: &str, bytes: &[u8], round: &str) {
        for (at, (block, bytes)) in self.pieces(name).iter_mut().zip(bytes.chunks(BLOCK as usize)).enumerate()
        {
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
