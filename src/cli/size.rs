//! Sizes as people type them: bytes, or a number behind which stands a binary unit.

/// Bytes of `4096`, `64K`, `4M`, `10G` or `2T`; `KiB` and `KB` mean the same as `K`, as everything here counts
/// in powers of 1024.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        "P" | "PB" | "PIB" => 50,
        _ => return Err("a size is a whole number of bytes, or of K, M, G, T or P: 4096, 64K, 10G".into()),
    };
    if number.is_empty() {
        return Err("a size begins with a number: 4096, 64K, 10G".into());
    }
    let number: Option<u64> = number.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    // No file and no device is larger.
    let bytes = bytes.filter(|bytes| i64::try_from(*bytes).is_ok());
    bytes.ok_or_else(|| "that is more than a file or device can have".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_binary_unit_or_none() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64K", 65536), ("4m", 4 << 20), ("10GiB", 10 << 30), ("2TB", 2 << 40)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_what_one_looks_like() {
        for wrong in ["", "G", "-1", "+1", "1.5G", "4 M", "4X", "0x10", "4MM"] {
            assert!(parse(wrong).unwrap_err().contains("64K"), "{wrong:?}");
        }
        for large in ["99999999999999999999", "16384P", "8192P"] {
            assert!(parse(large).unwrap_err().contains("more than"), "{large}");
        }
    }
}
