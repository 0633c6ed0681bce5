//! Names in messages: short enough for every client.

/// Bytes of a client's text that a message repeats. qemu closes a connection over a chunk of more than 1000
/// bytes.
const MOST: usize = 80;

/// The beginning of `name`, at most 80 bytes, unprintable characters escaped, with a mark if it is longer.
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
