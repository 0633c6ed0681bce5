//! Data that contains its place, so that data of another place or of an earlier round is detected.

use spindle_mem::Buffers;

/// Fills data: each eight bytes are their place in words, mixed with the round's seed.
pub(super) fn fill(buffers: &mut Buffers, start: u64, seed: u64) {
    let mut word = start << 32;
    for part in buffers.iter_mut() {
        for bytes in part.chunks_exact_mut(8) {
            bytes.copy_from_slice(&(word ^ seed).to_le_bytes());
            word += 1;
        }
    }
}

/// True if the data is what [`fill`] makes.
pub(super) fn is_right(buffers: &Buffers, start: u64, seed: u64) -> bool {
    let mut word = start << 32;
    buffers.iter().all(|part| {
        part.chunks_exact(8).all(|bytes| {
            let right = bytes == (word ^ seed).to_le_bytes();
            word += 1;
            right
        })
    })
}
