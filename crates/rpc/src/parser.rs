//! A parser for JSON values that follow each other in parts of any size. Sans-I/O.
//!
//! Every byte is processed once, wherever the parts were cut. A value over a limit is skipped without being
//! stored, and the next one is read as usual; invalid JSON ends the stream, because the start of the next
//! value is unknown then.

use std::fmt;

use crate::scan::{NumberScan, Step, StringScan, WordScan};
use crate::value::Value;

/// The largest message.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes from its first to its last.
    pub bytes: usize,
    /// Number of values in it, without names of members.
    pub values: usize,
    /// Nesting of arrays and objects.
    pub depth: usize,
}

impl Default for Limits {
    /// 4 MiB, 65,536 values, 64 deep (SPDK: 256 KiB, 8,192 and 64).
    fn default() -> Limits {
        Limits { bytes: 4 << 20, values: 65_536, depth: 64 }
    }
}

/// The result of parsing a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// A value.
    Value(Value),
    /// A message over a limit: the limit and the remedy, and its `id` if that came before.
    TooLarge {
        /// The member `id` of the message.
        id: Option<Value>,
        /// The exceeded limit.
        what: String,
    },
}

/// The stream is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The byte of the message, from 0.
    pub at: usize,
    /// The found text.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} of the message", self.what, self.at)
    }
}

impl std::error::Error for ParseError {}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Expect {
    Value,
    ValueOrEnd,
    NameOrEnd,
    Name,
    Colon,
    CommaOrEnd,
}

/// An array or object that is not closed yet.
enum Frame {
    Array(Vec<Value>),
    Object { members: Vec<(String, Value)>, name: String },
}

/// A token that has begun.
enum Token {
    Name(StringScan),
    String(StringScan),
    Number(NumberScan),
    Word(WordScan),
}

impl Token {
    /// Stops storing.
    fn empty(&mut self) {
        match self {
            Token::Name(scan) | Token::String(scan) => scan.empty(),
            Token::Number(scan) => scan.empty(),
            Token::Word(_) => {}
        }
    }
}

/// Reads values from a stream.
pub struct Parser {
    limits: Limits,
    stack: Vec<Frame>,
    token: Option<Token>,
    expect: Expect,
    /// Bytes of the current message so far.
    size: usize,
    values: usize,
    /// Set if the message is over a limit: its id, and which limit.
    over: Option<(Option<Value>, String)>,
}

impl Parser {
    /// A parser at the beginning of a stream.
    pub fn new(limits: Limits) -> Parser {
        let (stack, token, over) = (Vec::new(), None, None);
        Parser { limits, stack, token, expect: Expect::Value, size: 0, values: 0, over }
    }

    /// True if a message has begun and not ended.
    pub fn is_within(&self) -> bool {
        self.token.is_some() || !self.stack.is_empty()
    }

    /// Stored bytes of the message that has begun.
    pub fn held(&self) -> usize {
        if self.over.is_some() { 0 } else { self.size }
    }

    /// Takes bytes from the front of `input` until a message ends; returns that and the number of bytes used.
    /// If no message ends, all are used.
    ///
    /// # Errors
    /// [`ParseError`] once, after which the stream is unusable.
    pub fn push(&mut self, input: &[u8]) -> Result<(Option<Parsed>, usize), ParseError> {
        let mut used = 0;
        while used < input.len() {
            let (value, count) = self.step(&input[used..])?;
            used += count;
            if let Some(value) = value
                && let Some(parsed) = self.complete(value)
            {
                return Ok((Some(parsed), used));
            }
        }
        Ok((None, used))
    }

    /// Call this when no more bytes are available for now: it ends a number at the top level, as in SPDK.
    pub fn pause(&mut self) -> Option<Parsed> {
        let Some(Token::Number(number)) = &self.token else { return None };
        if !self.stack.is_empty() {
            return None;
        }
        let number = number.finished()?;
        self.token = None;
        self.complete(Value::Number(number))
    }

    /// Takes at least one byte, or ends a number before one; returns a value that ended, and the number of
    /// bytes used.
    fn step(&mut self, input: &[u8]) -> Result<(Option<Value>, usize), ParseError> {
        let began = self.size;
        let Some(mut token) = self.token.take() else {
            return self.structural(input[0]).map(|value| (value, 1));
        };
        let step = match &mut token {
            Token::Name(scan) | Token::String(scan) => map(scan.push(input), Value::String),
            Token::Number(scan) => map(scan.push(input), Value::Number),
            Token::Word(scan) => scan.push(input),
        };
        let (used, value) = match step {
            Step::More => (input.len(), None),
            Step::Done(used, value) => (used, Some(value)),
            Step::Bad(at, what) => return Err(self.bad(began + at, Some(input[at]), what)),
        };
        self.grow(used);
        match (value, token) {
            (Some(Value::String(text)), Token::Name(_)) => {
                if let Some(Frame::Object { name, .. }) = self.stack.last_mut() {
                    *name = text;
                }
                self.expect = Expect::Colon;
                Ok((None, used))
            }
            (Some(value), _) => Ok((Some(value), used)),
            (None, mut token) => {
                if self.over.is_some() {
                    token.empty();
                }
                self.token = Some(token);
                Ok((None, used))
            }
        }
    }

    /// Handles a byte outside of tokens; returns a value that ended with it.
    fn structural(&mut self, byte: u8) -> Result<Option<Value>, ParseError> {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            if self.is_within() {
                self.grow(1);
            }
            return Ok(None);
        }
        let at = self.size;
        self.grow(1);
        match (self.expect, byte) {
            (Expect::ValueOrEnd, b']') | (Expect::NameOrEnd, b'}') => return Ok(self.close()),
            (Expect::CommaOrEnd, b']') if matches!(self.stack.last(), Some(Frame::Array(_))) => {
                return Ok(self.close());
            }
            (Expect::CommaOrEnd, b'}') if matches!(self.stack.last(), Some(Frame::Object { .. })) => {
                return Ok(self.close());
            }
            (Expect::CommaOrEnd, b',') => {
                let in_array = matches!(self.stack.last(), Some(Frame::Array(_)));
                self.expect = if in_array { Expect::Value } else { Expect::Name };
            }
            (Expect::Colon, b':') => self.expect = Expect::Value,
            (Expect::Name | Expect::NameOrEnd, b'"') => {
                self.token = Some(Token::Name(StringScan::new(self.over.is_some())));
            }
            (Expect::Value | Expect::ValueOrEnd, _) => self.begin_value(at, byte)?,
            (expect, _) => return Err(self.bad(at, Some(byte), expected(expect, self.stack.last()))),
        }
        Ok(None)
    }

    fn begin_value(&mut self, at: usize, byte: u8) -> Result<(), ParseError> {
        match byte {
            b'[' | b'{' => {
                if self.stack.len() == self.limits.depth {
                    let what = format!("an array or object more than {} deep", self.limits.depth);
                    return Err(ParseError { at, what });
                }
                self.expect = if byte == b'[' { Expect::ValueOrEnd } else { Expect::NameOrEnd };
                self.stack.push(match byte {
                    b'[' => Frame::Array(Vec::new()),
                    _ => Frame::Object { members: Vec::new(), name: String::new() },
                });
            }
            b'"' => self.token = Some(Token::String(StringScan::new(self.over.is_some()))),
            _ => {
                let number = NumberScan::begin(byte).map(Token::Number);
                let token = number.or_else(|| WordScan::begin(byte).map(Token::Word));
                if token.is_none() {
                    return Err(self.bad(at, Some(byte), expected(self.expect, self.stack.last())));
                }
                self.token = token;
            }
        }
        Ok(())
    }

    /// Ends the current array or object and returns it.
    fn close(&mut self) -> Option<Value> {
        self.stack.pop().map(|frame| match frame {
            Frame::Array(elements) => Value::Array(elements),
            Frame::Object { members, .. } => Value::Object(members),
        })
    }

    /// Adds a value to its container; returns the message if it is complete.
    fn complete(&mut self, value: Value) -> Option<Parsed> {
        self.values += 1;
        if self.values > self.limits.values {
            let most = self.limits.values;
            self.pass_over(|| format!("more than {most} values in one message; send it in parts"));
        }
        let keep = self.over.is_none();
        match self.stack.last_mut() {
            Some(Frame::Array(elements)) => {
                if keep {
                    elements.push(value);
                }
            }
            Some(Frame::Object { members, name }) => {
                if keep {
                    members.push((std::mem::take(name), value));
                }
            }
            None => return Some(self.end(value)),
        }
        self.expect = Expect::CommaOrEnd;
        None
    }

    /// Ends the message; the next one begins.
    fn end(&mut self, value: Value) -> Parsed {
        self.expect = Expect::Value;
        self.size = 0;
        self.values = 0;
        match self.over.take() {
            None => Parsed::Value(value),
            Some((id, what)) => Parsed::TooLarge { id, what },
        }
    }

    fn grow(&mut self, bytes: usize) {
        self.size = self.size.saturating_add(bytes);
        if self.size > self.limits.bytes {
            let most = self.limits.bytes;
            self.pass_over(|| format!("a message of more than {most} bytes; send it in parts"));
        }
    }

    /// Frees the stored part of the message, and stores nothing more of it.
    fn pass_over(&mut self, what: impl FnOnce() -> String) {
        if self.over.is_some() {
            return;
        }
        let id = match self.stack.first_mut() {
            Some(Frame::Object { members, .. }) => {
                let found = members.iter().position(|(name, _)| name == "id");
                found.map(|found| members.swap_remove(found).1)
            }
            _ => None,
        };
        for frame in &mut self.stack {
            match frame {
                Frame::Array(elements) => *elements = Vec::new(),
                Frame::Object { members, .. } => *members = Vec::new(),
            }
        }
        self.over = Some((id, what()));
    }

    fn bad(&self, at: usize, byte: Option<u8>, what: &str) -> ParseError {
        let found = match byte {
            None => String::new(),
            Some(0) => "a NUL byte: ".to_owned(),
            Some(0xef) if !self.is_within() => "a byte order mark or other bytes beyond ASCII: ".to_owned(),
            Some(byte @ 0x21..=0x7e) => format!("'{}': ", byte as char),
            Some(byte) => format!("byte 0x{byte:02x}: "),
        };
        ParseError { at, what: format!("{found}{what}") }
    }
}

fn map<T>(step: Step<T>, f: impl FnOnce(T) -> Value) -> Step<Value> {
    match step {
        Step::More => Step::More,
        Step::Done(used, value) => Step::Done(used, f(value)),
        Step::Bad(at, what) => Step::Bad(at, what),
    }
}

fn expected(expect: Expect, within: Option<&Frame>) -> &'static str {
    match (expect, within) {
        (Expect::Value, None) => "a JSON value was expected",
        (Expect::Value, Some(_)) => "a value was expected",
        (Expect::ValueOrEnd, _) => "a value or ']' was expected",
        (Expect::NameOrEnd, _) => "a name in quotes or '}' was expected",
        (Expect::Name, _) => "a name in quotes was expected",
        (Expect::Colon, _) => "':' was expected",
        (Expect::CommaOrEnd, Some(Frame::Object { .. })) => "',' or '}' was expected",
        (Expect::CommaOrEnd, _) => "',' or ']' was expected",
    }
}
