//! Bytes and numbers as text for display.

use std::fmt::Write;

/// Bytes from an image or a command line as text that cannot harm a terminal: control characters, characters
/// that reorder or hide text, backslashes and bytes that are not UTF-8 are escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' || character.is_control() || is_invisible(character) {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A name as [`printable`]; one that is empty in quotes, so that it is seen.
pub(crate) fn named(name: &[u8]) -> String {
    if name.is_empty() { "\"\"".to_owned() } else { printable(name) }
}

/// Characters that are not control characters but change how the text around them is shown.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Shortens text to at most `columns` columns; dots replace the rest.
pub(crate) fn shortened(text: String, columns: usize) -> String {
    use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
    if text.width() <= columns {
        return text;
    }
    let mut left = columns.saturating_sub(3);
    let fits = |character: &char| match left.checked_sub(character.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).chain("...".chars()).collect()
}

/// Bytes as JSON text: themselves if they are UTF-8 (JSON escapes the rest), otherwise as [`printable`].
pub(crate) fn json_text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| printable(bytes), str::to_owned)
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes before the first NUL: SPDK's form of text in xattrs.
pub(crate) fn before_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// An id of an external snapshot as typed and printed: text without its NULs; in hexadecimal with `0x` if
/// it is not plain text.
pub(crate) fn external_id(id: &[u8]) -> String {
    let end = id.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let trimmed = &id[..end];
    if !trimmed.is_empty() && trimmed.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'=') {
        trimmed.iter().map(|&byte| char::from(byte)).collect()
    } else {
        format!("0x{}", hex(id))
    }
}

/// A number of bytes in the largest binary unit that fits, at most one decimal: `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    // Each unit is ten bits; 64 bits hold six of them.
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    let whole = bytes >> (10 * unit);
    let tenths = if unit == 0 { 0 } else { (bytes >> (10 * (unit - 1)) & 1023) * 10 / 1024 };
    match tenths {
        0 => format!("{whole} {}", UNITS[unit]),
        _ => format!("{whole}.{tenths} {}", UNITS[unit]),
    }
}

/// "1 blob", "2 blobs".
pub(crate) fn count(number: impl Into<u64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_terminal_gets_through() {
        assert_eq!(printable(b"plain name"), "plain name");
        assert_eq!(printable("gr\u{fc}n \u{1f9f5}".as_bytes()), "gr\u{fc}n \u{1f9f5}");
        assert_eq!(printable(b"\x1b[2Ja\nb\x07"), "\\u{1b}[2Ja\\nb\\u{7}");
        assert_eq!(printable("x\u{9b}31m\u{202e}".as_bytes()), "x\\u{9b}31m\\u{202e}");
        assert_eq!(printable(b"\xff\xfea"), "\\xff\\xfea");
        assert_eq!(printable(b"back\\slash"), "back\\\\slash");
    }

    #[test]
    fn sizes_are_exact_in_their_unit_and_cut_not_rounded() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (20 << 20, "20 MiB"),
            ((1 << 40) - 1, "1023.9 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn what_is_too_wide_is_cut_and_says_so() {
        assert_eq!(shortened("abcdef".into(), 6), "abcdef");
        assert_eq!(shortened("abcdefg".into(), 6), "abc...");
        assert_eq!(shortened("\u{7cf8}\u{7cf8}\u{7cf8}\u{7cf8}".into(), 7), "\u{7cf8}\u{7cf8}...");
    }

    #[test]
    fn an_external_id_is_typed_as_it_is_printed() {
        assert_eq!(external_id(b"3f1f3c1e-8f0a\0"), "3f1f3c1e-8f0a");
        assert_eq!(external_id(b"\x01\x00"), "0x0100");
        assert_eq!(external_id(b"a=b"), "0x613d62");
        assert_eq!(external_id(b"\0"), "0x00");
    }
}
