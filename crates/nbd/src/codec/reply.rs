//! Replies of the transmission phase, as bytes.
//!
//! A reply to a read is a [`Head`] and then the data, which is not copied; other replies are bytes alone.

use super::{Context, ErrorCode};

const SIMPLE: u32 = 0x6744_6698;
const CHUNK: u32 = 0x668e_33ef;
/// The chunk is the last of its reply.
const DONE: u16 = 1;
const TYPE_NONE: u16 = 0;
const TYPE_DATA: u16 = 1;
const TYPE_STATUS: u16 = 5;
const TYPE_ERROR: u16 = 0x8001;

/// Longest text of an error in bytes that every client accepts.
const MAX_TEXT: usize = 900;

/// Most bytes of a head.
pub const MAX_HEAD: usize = 28;

/// The bytes of a reply, or those before its data.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; MAX_HEAD],
    len: usize,
}

impl Head {
    fn new() -> Head {
        Head { bytes: [0; MAX_HEAD], len: 0 }
    }

    fn put<const N: usize>(mut self, bytes: [u8; N]) -> Head {
        self.bytes[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
        self
    }

    fn chunk(flags: u16, kind: u16, cookie: u64, len: u32) -> Head {
        let head = Head::new().put(CHUNK.to_be_bytes()).put(flags.to_be_bytes()).put(kind.to_be_bytes());
        head.put(cookie.to_be_bytes()).put(len.to_be_bytes())
    }
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Success without data, as a simple reply: allowed for every command but reads of structured connections.
pub fn success(cookie: u64) -> Head {
    Head::new().put(SIMPLE.to_be_bytes()).put(0u32.to_be_bytes()).put(cookie.to_be_bytes())
}

/// The bytes before the data of a successful read, which must not fail any more.
pub fn read(structured: bool, cookie: u64, offset: u64, len: u32) -> Head {
    match (structured, len) {
        (false, _) => success(cookie),
        // A chunk of data has at least one byte.
        (true, 0) => Head::chunk(DONE, TYPE_NONE, cookie, 0),
        (true, _) => Head::chunk(DONE, TYPE_DATA, cookie, len + 8).put(offset.to_be_bytes()),
    }
}

/// An error. The text is sent only in structured replies, and cut to a length that every client accepts.
pub fn error(out: &mut Vec<u8>, structured: bool, cookie: u64, code: ErrorCode, text: &str) {
    let number = (code as u32).to_be_bytes();
    if !structured {
        let head = Head::new().put(SIMPLE.to_be_bytes()).put(number).put(cookie.to_be_bytes());
        return out.extend_from_slice(head.as_ref());
    }
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let text = &text.as_bytes()[..end];
    let head = Head::chunk(DONE, TYPE_ERROR, cookie, 6 + text.len() as u32).put(number);
    out.extend_from_slice(head.put((text.len() as u16).to_be_bytes()).as_ref());
    out.extend_from_slice(text);
}

/// The status of one context: extents of length and flags. `last` ends the reply.
pub fn status(
    out: &mut Vec<u8>,
    cookie: u64,
    context: Context,
    extents: impl ExactSizeIterator<Item = (u32, u32)>,
    last: bool,
) {
    let len = 4 + 8 * extents.len() as u32;
    let head = Head::chunk(if last { DONE } else { 0 }, TYPE_STATUS, cookie, len);
    out.extend_from_slice(head.put(context.id().to_be_bytes()).as_ref());
    for (len, flags) in extents {
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
    }
}
