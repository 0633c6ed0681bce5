//! Names in messages: short enough for every client.

/// Bytes of a client's own words that a message repeats. qemu closes a connection over a chunk of more than
/// 1000 bytes.
const MOST: usize = 80;

/// The beginning of `name`, at most 80 bytes, with what cannot be printed escaped, and whether it goes on.
pub fn shortened(name: &str) -> String {
    let mut short = String::new();
    for part in name.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() }) {
        if short.len() + part.len() > MOST {
            short.push_str("...");
            break;
        }
        short.push_str(&part);
    }
    short
}
