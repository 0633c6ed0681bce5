//! What the bytes of an io unit say: which write they came from.
//!
//! Every unit that the workload writes holds one number of 64 bits over and over, made from a value that no
//! other unit shares, so that a unit in the wrong place, of the wrong blob or of two writes is seen at once.

use crate::units::{ANYTHING, GARBAGE, Value, ZERO};

/// Odd, so that every value has one word and zero is zero.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Its inverse modulo 2^64.
const INVERSE: u64 = inverse(FACTOR);

const fn inverse(odd: u64) -> u64 {
    let mut found = odd;
    let mut round = 0;
    while round < 6 {
        found = found.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(found)));
        round += 1;
    }
    found
}

/// The largest value that is written.
pub const LAST: Value = GARBAGE - 1;

/// What no write of the workload left: the start of a unit that nothing accounts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strange(pub [u8; 8]);

/// Fills units with consecutive values, or all with zeroes.
pub fn fill(bytes: &mut [u8], unit: usize, first: Value) {
    for (at, unit) in bytes.chunks_exact_mut(unit).enumerate() {
        let word = (u64::from(first) + at as u64).wrapping_mul(FACTOR).to_le_bytes();
        unit.chunks_exact_mut(8).for_each(|place| place.copy_from_slice(&word));
    }
}

/// What a unit holds.
///
/// # Errors
/// Nothing that the workload or the disk put there.
pub fn read(unit: &[u8]) -> Result<Value, Strange> {
    let (words, _) = unit.as_chunks::<8>();
    let Some(&first) = words.first() else { return Ok(ZERO) };
    let value = u64::from_le_bytes(first).wrapping_mul(INVERSE);
    if value <= u64::from(LAST) && words.iter().all(|word| *word == first) {
        return Ok(value as Value);
    }
    if unit.iter().all(|byte| byte & 0xf0 == 0xa0) {
        return Ok(GARBAGE);
    }
    Err(Strange(first))
}

/// A value in words.
pub fn name(value: Value) -> String {
    match value {
        ZERO => "zeroes".to_owned(),
        GARBAGE => "what unmapped blocks read".to_owned(),
        ANYTHING => "anything".to_owned(),
        value => format!("#{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_says_which_write_it_came_from() {
        let mut bytes = vec![0xff; 4096];
        fill(&mut bytes, 512, 41);
        assert_eq!(read(&bytes[512..1024]), Ok(42));
        assert_eq!(read(&[0; 512]), Ok(ZERO));
        assert_eq!(read(&[0xa7; 512]), Ok(GARBAGE));
        assert!(read(&bytes[256..768]).is_err(), "half of one unit and half of the next");
        assert_eq!(read(&[0x5a; 512]), Err(Strange([0x5a; 8])));
    }
}
