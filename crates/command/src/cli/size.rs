//! Sizes on the command line: bytes, or a number with a unit. Every option reads them the same way.

/// The form of a size, for errors.
const FORM: &str = "a size is a number of bytes, or of K, M, G, T or P: 4096, 64K, 1.5GiB, 10G";

/// Sizes of blocks that a device can have.
const BLOCKS: std::ops::RangeInclusive<u64> = 512..=64 << 10;

/// Bytes of `4096`, `64K`, `4MiB`, `1.5G` or `2T`. `K` and `KiB` are 1024 bytes, and so on by 1024; `KB`,
/// `MB` and the like, which mean 1000 to some and 1024 to others, are refused with both named. A fraction
/// must come to whole bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let upper = unit.to_ascii_uppercase();
    let shift = match upper.as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        "P" | "PIB" => 50,
        "KB" | "MB" | "GB" | "TB" | "PB" => return Err(ambiguous(number, &upper)),
        _ => return Err(FORM.into()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(FORM.into());
    }
    let bytes = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(1 << shift));
    let bytes = match part(fraction, shift) {
        Some(part) => bytes.and_then(|bytes| bytes.checked_add(part)),
        None => return Err(format!("{text} is not a whole number of bytes: give it in a smaller unit")),
    };
    // No file and no device is larger.
    let bytes = bytes.filter(|bytes| i64::try_from(*bytes).is_ok());
    bytes.ok_or_else(|| "that is more than a file or device can have".into())
}

/// Bytes of a block.
pub(crate) fn block(text: &str) -> Result<u64, String> {
    match parse(text)? {
        bytes if bytes.is_power_of_two() && BLOCKS.contains(&bytes) => Ok(bytes),
        _ => Err("blocks have a power of two of bytes, from 512 to 64K".into()),
    }
}

/// Bytes of the decimals after the point; `None` if they are not whole.
fn part(fraction: &str, shift: u32) -> Option<u64> {
    let digits = fraction.trim_end_matches('0');
    // 2^50 has no more than fifty decimals, but 10^38 is the last that fits.
    let tens = 10_u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
    let value: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scaled = value.checked_mul(1 << shift)?;
    if scaled.is_multiple_of(tens) { u64::try_from(scaled / tens).ok() } else { None }
}

fn ambiguous(number: &str, unit: &str) -> String {
    let letter = &unit[..1];
    format!(
        "{number}{unit} is 1000-based to some and 1024-based to others: write {number}{letter} or \
         {number}{letter}iB for powers of 1024, or the number of bytes"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_binary_unit_or_none() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("4m", 4 << 20),
            ("10GiB", 10 << 30),
            ("2T", 2 << 40),
            ("512B", 512),
            ("1.5G", 3 << 29),
            ("0.5k", 512),
            ("1.0", 1),
            ("2.25MiB", 9 << 18),
            ("0.0009765625M", 1024),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_what_one_looks_like() {
        for wrong in ["", "G", "-1", "+1", "4 M", "4X", "0x10", "4MM", ".5G", "1.G", "1.2.3G", "."] {
            assert!(parse(wrong).unwrap_err().contains("64K"), "{wrong:?}");
        }
        for large in ["99999999999999999999", "16384P", "8192P", "8191.999999P0"] {
            assert!(parse(large).is_err(), "{large}");
        }
        assert!(parse("8192P").unwrap_err().contains("more than"));
        for part in ["1.5", "0.1K", "1.00000000000000000000000000000000000000000001P"] {
            assert!(parse(part).unwrap_err().contains("whole number of bytes"), "{part}");
        }
    }

    #[test]
    fn a_block_has_a_power_of_two_of_bytes_that_devices_have() {
        for (text, bytes) in [("512", 512), ("4K", 4096), ("64K", 65536)] {
            assert_eq!(block(text), Ok(bytes), "{text}");
        }
        for wrong in ["0", "1", "100", "256", "600", "12K", "128K"] {
            assert!(block(wrong).unwrap_err().contains("a power of two"), "{wrong}");
        }
        assert!(block("4KB").unwrap_err().contains("4KiB"));
    }

    #[test]
    fn a_unit_that_means_two_things_is_refused_with_both() {
        for (text, names) in
            [("4KB", "4KiB"), ("1.5mb", "1.5MiB"), ("10GB", "10GiB"), ("2TB", "2TiB"), ("1PB", "1PiB")]
        {
            let said = parse(text).unwrap_err();
            assert!(said.contains(names) && said.contains("1000"), "{said}");
        }
    }
}
