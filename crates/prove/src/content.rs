//! The content of an io unit: it tells which write it came from.
//!
//! Every unit that the workload writes holds one number of 64 bits over and over, made from a value that no
//! other unit shares. So a unit in the wrong place, of the wrong blob or of two writes is detected at once.

use crate::units::{ANYTHING, GARBAGE, Value, ZERO};

/// Odd, so that each value has its own word, and zero maps to zero.
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

/// The largest value that the workload writes.
pub const LAST: Value = GARBAGE - 1;

/// The start of a unit that no write of the workload explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strange(pub [u8; 8]);

/// Fills units with consecutive values, or all with zeroes.
pub fn fill(bytes: &mut [u8], unit: usize, first: Value) {
    for (at, unit) in bytes.chunks_exact_mut(unit).enumerate() {
        let word = (u64::from(first) + at as u64).wrapping_mul(FACTOR).to_le_bytes();
        unit.chunks_exact_mut(8).for_each(|place| place.copy_from_slice(&word));
    }
}

/// Returns the value in a unit.
///
/// # Errors
/// Neither the workload nor the disk wrote this.
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

/// Names a value for a message.
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
