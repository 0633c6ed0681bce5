//! The fixed newstyle handshake.
//!
//! [`Negotiation`] takes a client's bytes and writes the answers. If an answer depends on the exports it
//! returns a [`Query`] to its owner and continues when that has been answered.

use super::option::{self, Fault, HEADER_LEN, Items, MAX_OPTION, OptionHeader, Parsed};
use super::option_reply::{self, OptionError};
use super::{Contexts, Offer, Rules, Violation, shortened};

/// `NBDMAGIC`, then the magic number of options.
const GREETING: u64 = 0x4e42_444d_4147_4943;
const FIXED_NEWSTYLE: u32 = 1;
const NO_ZEROES: u32 = 2;

/// More options than any client needs in one handshake.
const MAX_OPTIONS: u32 = 4096;

/// A question that the owner must answer before the handshake continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Which exports there are: [`Negotiation::list`].
    List,
    /// What this export offers: [`Negotiation::offer`] or [`Negotiation::refuse`].
    Export {
        /// The name that the client sent.
        name: String,
        /// True if the client wants to use it now: open it before offering it.
        serve: bool,
    },
}

/// What a server does about encryption on one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// It is not offered.
    #[default]
    None,
    /// A client gets nothing without it: every option but STARTTLS and ABORT is refused before.
    Required,
    /// The connection is encrypted.
    Active,
}

/// The state after processing input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// All usable input was processed.
    NeedsInput,
    /// Send the output, begin TLS with the bytes that come after it, and call [`Negotiation::encrypted`].
    StartTls,
    /// A question to answer.
    Query(Query),
    /// The client ended the handshake: send the output and close.
    Aborted,
}

/// Why an export is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is none of this name.
    Unknown,
    /// The server or the export is going away.
    ShuttingDown,
    /// It cannot be opened, for this reason.
    Failed(String),
}

/// The result of a successful handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The rules by which requests are checked.
    pub rules: Rules,
}

enum State {
    /// The client's flags come next.
    Flags,
    /// The header of an option comes next.
    Option,
    /// The data of an option comes next.
    Data(OptionHeader),
    /// Skips the data of an option; then the option is answered.
    Skip { header: OptionHeader, left: u32 },
    /// Waits for the owner's answer.
    Asked { option: u32, question: Question },
}

enum Question {
    List,
    ExportName,
    Info { items: Items, serve: bool },
    Meta { contexts: Contexts, set: bool },
}

/// The handshake of one connection.
pub struct Negotiation {
    state: State,
    encryption: Encryption,
    fixed: bool,
    zeroes: bool,
    structured: bool,
    /// The selected contexts, and their export.
    selected: (String, Contexts),
    /// The export in the pending question.
    name: String,
    options: u32,
}

impl Negotiation {
    /// Begins without encryption: writes the greeting to `out`.
    pub fn new(out: &mut Vec<u8>) -> Negotiation {
        Negotiation::with_encryption(Encryption::None, out)
    }

    /// Begins: writes the greeting to `out`.
    pub fn with_encryption(encryption: Encryption, out: &mut Vec<u8>) -> Negotiation {
        out.extend_from_slice(&GREETING.to_be_bytes());
        out.extend_from_slice(&option::MAGIC.to_be_bytes());
        out.extend_from_slice(&((FIXED_NEWSTYLE | NO_ZEROES) as u16).to_be_bytes());
        Negotiation {
            state: State::Flags,
            encryption,
            fixed: false,
            zeroes: true,
            structured: false,
            selected: (String::new(), Contexts::NONE),
            name: String::new(),
            options: 0,
        }
    }

    /// TLS has begun: everything that the client sent before is forgotten, except its flags.
    pub fn encrypted(&mut self) {
        self.encryption = Encryption::Active;
        self.state = State::Option;
        self.structured = false;
        self.selected = Default::default();
        self.name.clear();
    }

    /// Processes as much of `input` as possible, and returns the number of bytes used. The rest belongs before the
    /// next input; it is at most [`MAX_OPTION`] and a header.
    ///
    /// # Errors
    /// Close the connection without an answer.
    pub fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, Advance), Violation> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match &mut self.state {
                State::Flags => {
                    let Some((bytes, _)) = rest.split_first_chunk() else { break };
                    self.take_flags(u32::from_be_bytes(*bytes))?;
                    used += 4;
                }
                State::Option => {
                    let Some((bytes, _)) = rest.split_first_chunk() else { break };
                    self.begin_option(OptionHeader::parse(bytes)?)?;
                    used += HEADER_LEN;
                }
                State::Data(header) => {
                    let header = *header;
                    let Some(data) = rest.get(..header.len as usize) else { break };
                    used += data.len();
                    match self.take_option(header, data, out)? {
                        Advance::NeedsInput => {}
                        // An attacker on the network may have inserted them, so that they pass for encrypted ones.
                        Advance::StartTls if used < input.len() => return Err(Violation::BytesBeforeTls),
                        advance => return Ok((used, advance)),
                    }
                }
                State::Skip { header, left } => {
                    let now = rest.len().min(*left as usize);
                    used += now;
                    *left -= now as u32;
                    if *left > 0 {
                        break;
                    }
                    let header = *header;
                    self.state = State::Option;
                    self.answer_skipped(header, out)?;
                }
                State::Asked { question: Question::List, .. } => {
                    return Ok((used, Advance::Query(Query::List)));
                }
                State::Asked { question, .. } => {
                    let serve = matches!(question, Question::ExportName | Question::Info { serve: true, .. });
                    return Ok((used, Advance::Query(Query::Export { name: self.name.clone(), serve })));
                }
            }
        }
        Ok((used, Advance::NeedsInput))
    }

    fn take_flags(&mut self, flags: u32) -> Result<(), Violation> {
        if flags & !(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Err(Violation::ClientFlags(flags));
        }
        self.fixed = flags & FIXED_NEWSTYLE != 0;
        self.zeroes = flags & NO_ZEROES == 0;
        self.state = State::Option;
        Ok(())
    }

    fn begin_option(&mut self, header: OptionHeader) -> Result<(), Violation> {
        self.options += 1;
        if self.options > MAX_OPTIONS {
            return Err(Violation::Options(MAX_OPTIONS));
        }
        if !self.fixed && header.option != option::EXPORT_NAME {
            return Err(Violation::NotFixed(header.option));
        }
        let looked_at = option::is_known(header.option) && header.len as usize <= MAX_OPTION;
        self.state = match looked_at {
            true => State::Data(header),
            false => State::Skip { header, left: header.len },
        };
        Ok(())
    }

    /// Answers an option whose data was skipped.
    fn answer_skipped(&mut self, header: OptionHeader, out: &mut Vec<u8>) -> Result<(), Violation> {
        if self.encryption == Encryption::Required {
            return self.answer_unencrypted(header.option, out);
        }
        match option::is_known(header.option) {
            false => self.answer_unknown(header.option, out),
            true => self.answer_fault(header.option, Fault::TooBig, out)?,
        }
        Ok(())
    }

    fn start_tls(&self, option: u32, out: &mut Vec<u8>) -> Advance {
        let (error, text) = match self.encryption {
            Encryption::Required => {
                option_reply::ack(out, option);
                return Advance::StartTls;
            }
            Encryption::None => (OptionError::Unsupported, "TLS is not offered"),
            Encryption::Active => (OptionError::Invalid, "the connection is encrypted already"),
        };
        option_reply::error(out, option, error, text);
        Advance::NeedsInput
    }

    fn answer_unencrypted(&self, option: u32, out: &mut Vec<u8>) -> Result<(), Violation> {
        if option == option::EXPORT_NAME {
            return Err(Violation::ExportName);
        }
        let text = "this server serves encrypted connections only: use STARTTLS, or nbds:// in the URI";
        option_reply::error(out, option, OptionError::TlsRequired, text);
        Ok(())
    }

    fn answer_unknown(&self, option: u32, out: &mut Vec<u8>) {
        option_reply::error(out, option, OptionError::Unsupported, "this server does not know the option");
    }

    fn answer_fault(&mut self, option: u32, fault: Fault, out: &mut Vec<u8>) -> Result<(), Violation> {
        if option == option::EXPORT_NAME {
            return Err(Violation::ExportName);
        }
        if option::replaces_contexts(option) {
            self.selected = Default::default();
        }
        match fault {
            Fault::Invalid(text) => option_reply::error(out, option, OptionError::Invalid, text),
            Fault::TooBig => {
                option_reply::error(out, option, OptionError::TooBig, "more than 64 KiB of data");
            }
        }
        Ok(())
    }

    fn take_option(
        &mut self,
        header: OptionHeader,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Advance, Violation> {
        let option = header.option;
        self.state = State::Option;
        if self.encryption == Encryption::Required && !option::is_allowed_without_tls(option) {
            self.answer_unencrypted(option, out)?;
            return Ok(Advance::NeedsInput);
        }
        let parsed = match option::parse(option, data) {
            Ok(parsed) => parsed,
            Err(fault) => {
                self.answer_fault(option, fault, out)?;
                return Ok(Advance::NeedsInput);
            }
        };
        match parsed {
            Parsed::Abort => {
                option_reply::ack(out, option);
                return Ok(Advance::Aborted);
            }
            Parsed::StartTls => return Ok(self.start_tls(option, out)),
            Parsed::StructuredReply if self.structured => {
                let text = "structured replies were negotiated before";
                option_reply::error(out, option, OptionError::Invalid, text);
            }
            Parsed::StructuredReply => {
                self.structured = true;
                option_reply::ack(out, option);
            }
            Parsed::Unknown => self.answer_unknown(option, out),
            Parsed::List => self.ask(option, String::new(), Question::List),
            Parsed::ExportName(name) => self.ask(option, name, Question::ExportName),
            Parsed::Info { name, items, serve } => self.ask(option, name, Question::Info { items, serve }),
            Parsed::Meta { set: true, .. } if !self.structured => {
                self.selected = Default::default();
                let text = "metadata contexts need structured replies: negotiate those first";
                option_reply::error(out, option, OptionError::Invalid, text);
            }
            Parsed::Meta { name, contexts, set } => self.ask(option, name, Question::Meta { contexts, set }),
        }
        Ok(Advance::NeedsInput)
    }

    fn ask(&mut self, option: u32, name: String, question: Question) {
        self.name = name;
        self.state = State::Asked { option, question };
    }

    /// Answers [`Query::List`] with names and descriptions. No effect on other questions.
    pub fn list<'a>(&mut self, exports: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
        let State::Asked { option, question: Question::List } = self.state else { return };
        self.state = State::Option;
        exports.into_iter().for_each(|(name, text)| option_reply::server(out, option, name, text));
        option_reply::ack(out, option);
    }

    /// Answers [`Query::Export`] with the export's offer. With the result, the transmission phase begins.
    pub fn offer(&mut self, offer: &Offer, out: &mut Vec<u8>) -> Option<Agreed> {
        let State::Asked { option, question } = std::mem::replace(&mut self.state, State::Option) else {
            return None;
        };
        match question {
            Question::List => {
                self.state = State::Asked { option, question };
                None
            }
            Question::ExportName => {
                option_reply::export(out, offer, self.structured, self.zeroes);
                Some(self.agree(offer))
            }
            Question::Info { items, serve } => {
                option_reply::information(out, option, offer, items, self.structured);
                option_reply::ack(out, option);
                serve.then(|| self.agree(offer))
            }
            Question::Meta { contexts, set } => {
                let contexts: Vec<_> = contexts.iter().filter(|c| offer.contexts.contains(*c)).collect();
                contexts.iter().for_each(|context| option_reply::context(out, option, *context, set));
                option_reply::ack(out, option);
                if set {
                    let mut selected = Contexts::NONE;
                    contexts.into_iter().for_each(|context| selected.insert(context));
                    self.selected = (std::mem::take(&mut self.name), selected);
                }
                None
            }
        }
    }

    fn agree(&self, offer: &Offer) -> Agreed {
        // Contexts belong to the export for which they were selected.
        let contexts = if self.selected.0 == self.name { self.selected.1 } else { Contexts::NONE };
        let read_only = offer.flags.is_read_only();
        Agreed { rules: Rules { size: offer.size, read_only, structured: self.structured, contexts } }
    }

    /// Answers [`Query::Export`] with a refusal.
    ///
    /// # Errors
    /// The client used EXPORT_NAME, which has no error reply: close the connection.
    pub fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>) -> Result<(), Violation> {
        let State::Asked { option, question } = std::mem::replace(&mut self.state, State::Option) else {
            return Ok(());
        };
        let name = shortened(&self.name);
        let (error, text) = match refusal {
            Refusal::Unknown => (OptionError::Unknown, format!("no export is called '{name}'")),
            Refusal::ShuttingDown => (OptionError::ShuttingDown, format!("'{name}' is going away")),
            Refusal::Failed(reason) => {
                let text = format!("'{name}' cannot be opened: {reason}");
                (OptionError::Platform, text.chars().take(200).collect())
            }
        };
        match question {
            Question::ExportName => return Err(Violation::ExportName),
            Question::Meta { set: true, .. } => self.selected = Default::default(),
            _ => {}
        }
        option_reply::error(out, option, error, &text);
        Ok(())
    }
}
