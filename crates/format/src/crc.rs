//! CRC-32C as the format uses it. Only this module knows which crate computes it.

/// CRC-32C (Castagnoli, reflected, initial value and final XOR all ones).
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The CRC-32C of bytes that follow others, whose CRC-32C is `crc` (0 for none).
pub fn crc32c_after(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// The CRC a 4096-byte super block or metadata page should carry: over its first 4092 bytes, independent of the
/// store's metadata page size.
pub fn of_page(page: &[u8; 4096]) -> u32 {
    crc32c(&page[..4092])
}

/// The CRC in a page's last four bytes.
pub fn stored_in(page: &[u8; 4096]) -> u32 {
    u32::from_le_bytes([page[4092], page[4093], page[4094], page[4095]])
}

/// Writes the right CRC into a page's last four bytes.
pub fn seal(page: &mut [u8; 4096]) {
    let crc = of_page(page);
    page[4092..].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_castagnoli_with_the_standard_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_after(crc32c_after(0, b"1234"), b"56789"), 0xE306_9283);
    }

    #[test]
    fn a_zero_page_does_not_pass_for_a_sealed_one() {
        let page = [0; 4096];
        assert_ne!(of_page(&page), stored_in(&page));
    }
}
