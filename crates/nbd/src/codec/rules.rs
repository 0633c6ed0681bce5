//! The rules by which requests on one connection are checked.

use super::{CommandFlags, Contexts, ErrorCode, MAX_PAYLOAD, Request};

/// A request that may be carried out. Ranges lie inside the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send the range's bytes.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Store the bytes that follow the header.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
        /// Reply when they are durable.
        fua: bool,
    },
    /// Finish what is under way and close; has no reply.
    Disconnect,
    /// Make every write durable that was answered.
    Flush,
    /// The range's contents are not needed any more.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
        /// Reply when the effect is durable.
        fua: bool,
    },
    /// The range will be read soon.
    Cache {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Make the range read as zeroes.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
        /// Reply when they are durable.
        fua: bool,
        /// Keep the range allocated.
        no_hole: bool,
        /// Fail at once if this takes as long as writing.
        fast: bool,
    },
    /// Report what the range holds; never empty.
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u32,
        /// One extent only.
        one: bool,
    },
}

/// The result of checking a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It may be carried out.
    Command(Command),
    /// It must be answered with an error, after skipping its payload.
    Refused {
        /// The error.
        code: ErrorCode,
        /// The reason, in words.
        reason: &'static str,
        /// Bytes that follow the header.
        payload: u32,
    },
}

/// The agreement for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Size of the export in bytes.
    pub size: u64,
    /// Only reading is allowed.
    pub read_only: bool,
    /// Structured replies were negotiated.
    pub structured: bool,
    /// The contexts in replies to block status.
    pub contexts: Contexts,
}

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

type Refusal = (ErrorCode, &'static str);

impl Rules {
    /// Checks a request.
    pub fn check(&self, request: &Request) -> Checked {
        match self.command(request) {
            Ok(command) => Checked::Command(command),
            Err((code, reason)) => {
                let payload = if request.command == WRITE { request.len } else { 0 };
                Checked::Refused { code, reason, payload }
            }
        }
    }

    fn command(&self, request: &Request) -> Result<Command, Refusal> {
        let &Request { flags, offset, len, .. } = request;
        if request.command == DISCONNECT {
            // Its other fields are ignored.
            return Ok(Command::Disconnect);
        }
        self.check_flags(request)?;
        let fua = flags.contains(CommandFlags::FUA);
        match request.command {
            READ => {
                self.check_range(request, ErrorCode::Invalid)?;
                check_payload(len)?;
                Ok(Command::Read { offset, len })
            }
            WRITE => {
                self.check_writable()?;
                check_payload(len)?;
                self.check_range(request, ErrorCode::NoSpace)?;
                Ok(Command::Write { offset, len, fua })
            }
            FLUSH if offset != 0 || len != 0 => {
                Err((ErrorCode::Invalid, "a flush has no range: offset and length must be 0"))
            }
            FLUSH => Ok(Command::Flush),
            TRIM => {
                self.check_writable()?;
                self.check_range(request, ErrorCode::Invalid)?;
                Ok(Command::Trim { offset, len, fua })
            }
            CACHE => {
                self.check_range(request, ErrorCode::Invalid)?;
                Ok(Command::Cache { offset, len })
            }
            WRITE_ZEROES => {
                self.check_writable()?;
                self.check_range(request, ErrorCode::NoSpace)?;
                let no_hole = flags.contains(CommandFlags::NO_HOLE);
                let fast = flags.contains(CommandFlags::FAST_ZERO);
                Ok(Command::WriteZeroes { offset, len, fua, no_hole, fast })
            }
            BLOCK_STATUS => {
                if self.contexts.is_empty() {
                    return Err((ErrorCode::Invalid, "no metadata context was negotiated"));
                }
                self.check_range(request, ErrorCode::Invalid)?;
                if len == 0 {
                    return Err((ErrorCode::Invalid, "the status of no bytes has no extents"));
                }
                Ok(Command::BlockStatus { offset, len, one: flags.contains(CommandFlags::REQ_ONE) })
            }
            _ => Err((ErrorCode::Invalid, "unknown command")),
        }
    }

    fn check_flags(&self, request: &Request) -> Result<(), Refusal> {
        let extra = match request.command {
            READ if self.structured => CommandFlags::DF,
            WRITE_ZEROES => CommandFlags::NO_HOLE.with(CommandFlags::FAST_ZERO),
            BLOCK_STATUS => CommandFlags::REQ_ONE,
            _ => CommandFlags::default(),
        };
        match CommandFlags::FUA.with(extra).contains(request.flags) {
            true => Ok(()),
            false => Err((ErrorCode::Invalid, "a flag that this command does not have")),
        }
    }

    fn check_writable(&self) -> Result<(), Refusal> {
        match self.read_only {
            true => Err((ErrorCode::Permission, "the export is read-only")),
            false => Ok(()),
        }
    }

    fn check_range(&self, request: &Request, code: ErrorCode) -> Result<(), Refusal> {
        match request.offset.checked_add(u64::from(request.len)) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err((code, "the range ends beyond the export")),
        }
    }
}

fn check_payload(len: u32) -> Result<(), Refusal> {
    match len <= MAX_PAYLOAD {
        true => Ok(()),
        false => Err((ErrorCode::Invalid, "more than 32 MiB in one request")),
    }
}
