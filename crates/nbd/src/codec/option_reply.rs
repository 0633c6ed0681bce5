//! Replies to options, as bytes.

use super::option::Items;
use super::{Context, Offer};

const MAGIC: u64 = 0x0003_e889_0455_65a9;

const ACK: u32 = 1;
const SERVER: u32 = 2;
const INFO: u32 = 3;
const META_CONTEXT: u32 = 4;

/// An error reply to an option. The client may send another option after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum OptionError {
    Unsupported = 0x8000_0001,
    Invalid = 0x8000_0003,
    Platform = 0x8000_0004,
    TlsRequired = 0x8000_0005,
    Unknown = 0x8000_0006,
    ShuttingDown = 0x8000_0007,
    TooBig = 0x8000_0009,
}

fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[&[u8]]) {
    let len: usize = data.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(len as u32).to_be_bytes());
    data.iter().for_each(|part| out.extend_from_slice(part));
}

pub(super) fn ack(out: &mut Vec<u8>, option: u32) {
    reply(out, option, ACK, &[]);
}

pub(super) fn error(out: &mut Vec<u8>, option: u32, error: OptionError, text: &str) {
    reply(out, option, error as u32, &[text.as_bytes()]);
}

/// One entry of a list.
pub(super) fn server(out: &mut Vec<u8>, option: u32, name: &str, description: &str) {
    let len = (name.len() as u32).to_be_bytes();
    reply(out, option, SERVER, &[&len, name.as_bytes(), description.as_bytes()]);
}

/// The information about an export for INFO and GO, with the requested items.
pub(super) fn information(out: &mut Vec<u8>, option: u32, offer: &Offer, items: Items, structured: bool) {
    let flags = offer.flags.bits(structured).to_be_bytes();
    reply(out, option, INFO, &[&0u16.to_be_bytes(), &offer.size.to_be_bytes(), &flags]);
    if items.name {
        reply(out, option, INFO, &[&1u16.to_be_bytes(), offer.name.as_bytes()]);
    }
    if items.description && !offer.description.is_empty() {
        reply(out, option, INFO, &[&2u16.to_be_bytes(), offer.description.as_bytes()]);
    }
    if items.block_sizes {
        let sizes = offer.block_sizes;
        let [minimum, preferred, maximum] =
            [sizes.minimum, sizes.preferred, sizes.maximum].map(u32::to_be_bytes);
        reply(out, option, INFO, &[&3u16.to_be_bytes(), &minimum, &preferred, &maximum]);
    }
}

/// One metadata context; its number is 0 in a list.
pub(super) fn context(out: &mut Vec<u8>, option: u32, context: Context, selected: bool) {
    let id = if selected { context.id() } else { 0 };
    reply(out, option, META_CONTEXT, &[&id.to_be_bytes(), context.name().as_bytes()]);
}

/// The answer to EXPORT_NAME, which has a special form.
pub(super) fn export(out: &mut Vec<u8>, offer: &Offer, structured: bool, zeroes: bool) {
    out.extend_from_slice(&offer.size.to_be_bytes());
    out.extend_from_slice(&offer.flags.bits(structured).to_be_bytes());
    if zeroes {
        out.extend_from_slice(&[0; 124]);
    }
}
