//! A JSON number as written, and its conversion to integers as in SPDK's decoder.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::writer::VERBATIM;

/// A number as it was written: `1e3` stays `1e3`.
#[derive(Clone, Debug, PartialEq)]
pub struct Number(Box<str>);

/// Why a number is not the required integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnInteger {
    /// It has a fraction, or is a zero written with one.
    #[error("is not an integer")]
    Fraction,
    /// It has more digits than 64 bits hold, or lies outside of the required range.
    #[error("is out of range")]
    Range,
    /// It has a minus sign, and an unsigned integer is required.
    #[error("is negative")]
    Negative,
}

/// The parts of a number: the digits, times ten to the exponent, which is never positive.
struct Parts {
    negative: bool,
    digits: u64,
    exponent: i64,
}

impl Number {
    /// From text that the parser has checked to be a JSON number.
    pub(crate) fn new(text: &str) -> Number {
        Number(text.into())
    }

    /// The number as it was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// As an unsigned integer. `8.0`, `8e0` and `80e-1` are 8; `0.0` and `-0` are refused, and so is a number
    /// whose digits, with all written zeroes, need more than 64 bits. As in SPDK's decoder.
    pub fn as_u64(&self) -> Result<u64, NotAnInteger> {
        let parts = self.parts()?;
        match parts {
            Parts { exponent, .. } if exponent != 0 => Err(NotAnInteger::Fraction),
            Parts { negative: true, .. } => Err(NotAnInteger::Negative),
            Parts { digits, .. } => Ok(digits),
        }
    }

    /// As a signed integer; otherwise as [`as_u64`](Self::as_u64).
    pub fn as_i64(&self) -> Result<i64, NotAnInteger> {
        let parts = self.parts()?;
        if parts.exponent != 0 {
            return Err(NotAnInteger::Fraction);
        }
        let value = i128::from(parts.digits) * if parts.negative { -1 } else { 1 };
        i64::try_from(value).map_err(|_| NotAnInteger::Range)
    }

    fn parts(&self) -> Result<Parts, NotAnInteger> {
        let unsigned = self.0.strip_prefix('-');
        let negative = unsigned.is_some();
        let text = unsigned.unwrap_or(&self.0);
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = whole.bytes().chain(fraction.bytes()).try_fold(0, append_digit);
        let digits = digits.ok_or(NotAnInteger::Range)?;
        let exponent: i64 = exponent.parse().map_err(|_| NotAnInteger::Range)?;
        let exponent = exponent.checked_sub(fraction.len() as i64).ok_or(NotAnInteger::Range)?;
        let (digits, exponent) = applied(digits, exponent)?;
        Ok(Parts { negative, digits, exponent })
    }
}

fn append_digit(digits: u64, digit: u8) -> Option<u64> {
    digits.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
}

/// Applies as much of the exponent to the digits as possible without a fraction.
fn applied(mut digits: u64, mut exponent: i64) -> Result<(u64, i64), NotAnInteger> {
    while exponent < 0 && digits >= 10 && digits.is_multiple_of(10) {
        digits /= 10;
        exponent += 1;
    }
    if digits == 0 && exponent > 0 {
        return Ok((0, 0));
    }
    while exponent > 0 {
        digits = digits.checked_mul(10).ok_or(NotAnInteger::Range)?;
        exponent -= 1;
    }
    Ok((digits, exponent))
}

impl Serialize for Number {
    /// [`to_json`](crate::to_json) writes it as it was sent, with any length and form. For other serialisers it is an
    /// integer if it is written as one of 64 bits, and text otherwise.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.text();
        match (text.parse::<u64>(), text.parse::<i64>()) {
            (Ok(value), _) => serializer.serialize_u64(value),
            (_, Ok(value)) if value != 0 => serializer.serialize_i64(value),
            _ => serializer.serialize_newtype_struct(VERBATIM, text),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_spdk_reads_them() {
        let good = [
            ("8", 8),
            ("8.0", 8),
            ("8e0", 8),
            ("0.8e1", 8),
            ("80e-1", 8),
            ("8E+0", 8),
            ("1e3", 1000),
            ("1e19", 10_000_000_000_000_000_000),
            ("18446744073709551615", u64::MAX),
            ("1844674407370955161.5e1", u64::MAX),
            ("1e0000000001", 10),
            ("0.00000000008e11", 8),
            ("9007199254740993", 9_007_199_254_740_993),
            ("0", 0),
            ("0e999999999", 0),
        ];
        for (text, value) in good {
            assert_eq!(Number::new(text).as_u64(), Ok(value), "{text}");
        }
        let zeroes = format!("0.{}1e102", "0".repeat(100));
        assert_eq!(Number::new(&zeroes).as_u64(), Ok(10));
    }

    #[test]
    fn what_spdk_does_not_read_as_an_integer_is_refused() {
        let bad = ["8.5", "1e-3", "1e20", "18446744073709551616", "-0", "-8", "0.0", "1e999999999999"];
        for text in bad {
            assert!(Number::new(text).as_u64().is_err(), "{text}");
        }
        let zeroes = format!("8.{}", "0".repeat(21));
        assert!(Number::new(&zeroes).as_u64().is_err());
        assert_eq!(Number::new("-0").as_i64(), Ok(0));
        assert_eq!(Number::new("-9223372036854775808").as_i64(), Ok(i64::MIN));
        assert!(Number::new("-9223372036854775809").as_i64().is_err());
    }
}
