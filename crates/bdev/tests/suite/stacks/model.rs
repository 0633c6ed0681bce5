//! What each block of a stripe may hold, by the writes that ended, failed or were given up.

use std::collections::BTreeSet;

use spindle_mem::{Buffers, IoBuf};

#[path = "../../../../../tests/support/random.rs"]
mod random;

pub use random::Random;

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// One block: the numbers with which it may be filled.
#[derive(Clone, Default)]
struct Block {
    may_hold: BTreeSet<u64>,
    /// A change that was given up may still reach it.
    restless: bool,
}

/// The blocks of one worker, which no other worker changes.
pub struct Stripe {
    first: u64,
    blocks: Vec<Block>,
    next: u64,
}

impl Stripe {
    /// All zeroes.
    pub fn new(number: u64, first: u64, count: u64) -> Stripe {
        let zero = Block { may_hold: BTreeSet::from([0]), restless: false };
        Stripe { first, blocks: vec![zero; count as usize], next: number << 32 }
    }

    pub fn len(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// The byte of the bdev at which a block of the stripe begins.
    pub fn offset(&self, block: u64) -> u64 {
        (self.first + block) * BLOCK as u64
    }

    /// The block's number on the bdev.
    pub fn start(&self, block: u64) -> u64 {
        self.first + block
    }

    /// Numbers that no block has held yet.
    pub fn fresh(&mut self, count: u64) -> Vec<u64> {
        let from = self.next + 1;
        self.next += count;
        (from..=self.next).collect()
    }

    /// What the blocks hold, if that is known.
    pub fn known(&self, block: u64, count: u64) -> Option<Vec<u64>> {
        let blocks = &self.blocks[block as usize..(block + count) as usize];
        blocks.iter().map(|one| Some(*one.may_hold.first()?).filter(|_| one.may_hold.len() == 1)).collect()
    }

    /// A change has succeeded.
    pub fn set(&mut self, block: u64, numbers: &[u64]) {
        for (one, number) in self.blocks[block as usize..].iter_mut().zip(numbers) {
            *one = Block { may_hold: BTreeSet::from([*number]), restless: false };
        }
    }

    /// A change may have happened; it has ended unless it is `restless`.
    pub fn may(&mut self, block: u64, numbers: &[u64], restless: bool) {
        for (one, number) in self.blocks[block as usize..].iter_mut().zip(numbers) {
            one.may_hold.insert(*number);
            one.restless |= restless;
        }
    }

    /// A read has succeeded: what it found can be, and stays so if nothing is under way.
    pub fn found(&mut self, block: u64, data: &Buffers) -> Result<(), String> {
        let bytes: Vec<u8> = data.to_vec();
        for (at, chunk) in bytes.chunks(BLOCK).enumerate() {
            let number = u64::from_le_bytes(chunk[..8].try_into().unwrap());
            let one = &mut self.blocks[block as usize + at];
            if chunk.chunks(8).any(|part| part != &chunk[..8]) || !one.may_hold.contains(&number) {
                let block = self.first + block + at as u64;
                return Err(format!("block {block} holds {number:#x}, not one of {:x?}", one.may_hold));
            }
            if !one.restless {
                one.may_hold = BTreeSet::from([number]);
            }
        }
        Ok(())
    }
}

/// Blocks filled with these numbers.
pub fn filled(numbers: &[u64]) -> IoBuf {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes().repeat(BLOCK / 8)).collect();
    IoBuf::copy_from(&bytes)
}
