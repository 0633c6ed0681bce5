//! Options of the handshake, parsed.

use super::{Contexts, MAX_STRING, Violation};

/// Longest option data that is parsed; longer data is skipped.
pub const MAX_OPTION: usize = 64 << 10;

/// Longest data of an option that is skipped; more ends the connection.
const MAX_SKIPPED: u32 = 32 << 20;

/// Bytes of an option's header.
pub(super) const HEADER_LEN: usize = 16;

/// `IHAVEOPT`, before each option.
pub(super) const MAGIC: u64 = 0x4948_4156_454f_5054;

pub(super) const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const LIST: u32 = 3;
const STARTTLS: u32 = 5;
const INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const LIST_META_CONTEXT: u32 = 9;
const SET_META_CONTEXT: u32 = 10;

/// The header of an option.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptionHeader {
    pub(super) option: u32,
    pub(super) len: u32,
}

impl OptionHeader {
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<OptionHeader, Violation> {
        let [magic @ .., o0, o1, o2, o3, l0, l1, l2, l3] = *bytes;
        let magic = u64::from_be_bytes(magic);
        if magic != MAGIC {
            return Err(Violation::OptionMagic(magic));
        }
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if len > MAX_SKIPPED {
            return Err(Violation::OptionLength(len));
        }
        Ok(OptionHeader { option: u32::from_be_bytes([o0, o1, o2, o3]), len })
    }
}

/// Pieces of information that INFO and GO may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Items {
    pub(super) name: bool,
    pub(super) description: bool,
    pub(super) block_sizes: bool,
}

/// An option with valid data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    ExportName(String),
    Abort,
    List,
    StartTls,
    /// GO if `serve` is set.
    Info {
        name: String,
        items: Items,
        serve: bool,
    },
    StructuredReply,
    /// SET_META_CONTEXT if `set` is set; contexts by name, among all known ones.
    Meta {
        name: String,
        contexts: Contexts,
        set: bool,
    },
    Unknown,
}

/// Why an option is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The data breaks the protocol.
    Invalid(&'static str),
    /// The data is too long to parse.
    TooBig,
}

/// True if the data of the option is parsed.
pub(super) fn is_known(option: u32) -> bool {
    matches!(option, EXPORT_NAME..=LIST | STARTTLS..=SET_META_CONTEXT)
}

/// True for what a client may ask of a server that requires TLS before it has begun.
pub(super) fn is_allowed_without_tls(option: u32) -> bool {
    matches!(option, ABORT | STARTTLS)
}

/// True if the option replaces the set of metadata contexts, even if it fails.
pub(super) fn replaces_contexts(option: u32) -> bool {
    option == SET_META_CONTEXT
}

/// Reads the data of an option.
pub(super) fn parse(option: u32, data: &[u8]) -> Result<Parsed, Fault> {
    let without_data = |parsed| match data {
        [] => Ok(parsed),
        _ => Err(Fault::Invalid("this option has no data")),
    };
    match option {
        EXPORT_NAME => Ok(Parsed::ExportName(string(data)?)),
        ABORT => Ok(Parsed::Abort),
        LIST => without_data(Parsed::List),
        STARTTLS => without_data(Parsed::StartTls),
        STRUCTURED_REPLY => without_data(Parsed::StructuredReply),
        INFO | GO => info(data, option == GO),
        LIST_META_CONTEXT | SET_META_CONTEXT => meta(data, option == SET_META_CONTEXT),
        _ => Ok(Parsed::Unknown),
    }
}

fn info(data: &[u8], serve: bool) -> Result<Parsed, Fault> {
    let mut rest = Rest(data);
    let name = rest.string()?;
    let count = rest.u16()?;
    let mut items = Items::default();
    for _ in 0..count {
        match rest.u16()? {
            1 => items.name = true,
            2 => items.description = true,
            3 => items.block_sizes = true,
            // Unknown information is not an error.
            _ => {}
        }
    }
    rest.end()?;
    Ok(Parsed::Info { name, items, serve })
}

fn meta(data: &[u8], set: bool) -> Result<Parsed, Fault> {
    let mut rest = Rest(data);
    let name = rest.string()?;
    let count = rest.u32()?;
    let mut contexts = if count == 0 && !set { Contexts::ALL } else { Contexts::NONE };
    for _ in 0..count {
        let len = rest.u32()? as usize;
        let query = rest.bytes(len)?;
        if query.len() > MAX_STRING {
            return Err(Fault::Invalid("a query is longer than 4096 bytes"));
        }
        match set {
            true => contexts.select(query, Contexts::ALL),
            false => contexts.list(query, Contexts::ALL),
        }
    }
    rest.end()?;
    Ok(Parsed::Meta { name, contexts, set })
}

/// A name or other text in the protocol's form.
fn string(bytes: &[u8]) -> Result<String, Fault> {
    if bytes.len() > MAX_STRING {
        return Err(Fault::Invalid("a name is longer than 4096 bytes"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(Fault::Invalid("a name is UTF-8 without NUL")),
    }
}

/// Unread data. Each length is checked against the rest.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let Some((bytes, rest)) = self.0.split_at_checked(len) else {
            return Err(Fault::Invalid("a length inside the option reaches beyond it"));
        };
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    fn string(&mut self) -> Result<String, Fault> {
        let len = self.u32()? as usize;
        string(self.bytes(len)?)
    }

    fn end(&self) -> Result<(), Fault> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Fault::Invalid("the option has bytes after its data")),
        }
    }
}
