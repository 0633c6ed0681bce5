//! Tokens that may be cut between parts: strings, numbers and the three words, scanned byte by byte.

use crate::number::Number;
use crate::value::Value;

/// The result of giving bytes to a token.
pub(crate) enum Step<T> {
    /// All bytes used; the token continues.
    More,
    /// The token ends after that many bytes.
    Done(usize, T),
    /// The byte at that place is invalid, and why.
    Bad(usize, &'static str),
}

/// A string after its opening quote.
#[derive(Default)]
pub(crate) struct StringScan {
    text: Vec<u8>,
    state: StringState,
    /// Set if nothing is stored, because the message is over its limit.
    hollow: bool,
}

#[derive(Default, Clone, Copy)]
enum StringState {
    #[default]
    Plain,
    Escape,
    /// Hex digits of an escape: how many came, and their value; the first half of a pair, if there was one.
    Unicode(u8, u16, Option<u16>),
    /// After the first half of a pair: the backslash, then the u of the second.
    PairEscape(u16),
    PairU(u16),
}

const LONE_SURROGATE: &str = "half of a surrogate pair in an escape; send both halves";
const NOT_UTF8: &str = "a string that is not UTF-8";

impl StringScan {
    pub(crate) fn new(hollow: bool) -> StringScan {
        StringScan { hollow, ..StringScan::default() }
    }

    /// Stops storing.
    pub(crate) fn empty(&mut self) {
        self.hollow = true;
        self.text = Vec::new();
    }

    pub(crate) fn push(&mut self, input: &[u8]) -> Step<String> {
        let mut at = 0;
        while at < input.len() {
            let byte = input[at];
            match self.state {
                StringState::Plain => {
                    let run = plain_run(&input[at..]);
                    self.keep(&input[at..at + run]);
                    at += run;
                    match input.get(at) {
                        None => break,
                        Some(b'"') => return self.end(at + 1),
                        Some(b'\\') => self.state = StringState::Escape,
                        Some(_) => {
                            return Step::Bad(at, "a control character in a string; escape it as \\u00XX");
                        }
                    }
                }
                StringState::Escape => match self.escape(byte) {
                    Some(state) => self.state = state,
                    None => return Step::Bad(at, "an escape that JSON does not have"),
                },
                StringState::Unicode(count, value, high) => {
                    let Some(digit) = (byte as char).to_digit(16) else {
                        return Step::Bad(at, "an escape \\u without four hex digits");
                    };
                    let value = value << 4 | digit as u16;
                    if count < 3 {
                        self.state = StringState::Unicode(count + 1, value, high);
                    } else if let Err(what) = self.unit(value, high) {
                        return Step::Bad(at, what);
                    }
                }
                StringState::PairEscape(high) => match byte {
                    b'\\' => self.state = StringState::PairU(high),
                    _ => return Step::Bad(at, LONE_SURROGATE),
                },
                StringState::PairU(high) => match byte {
                    b'u' => self.state = StringState::Unicode(0, 0, Some(high)),
                    _ => return Step::Bad(at, LONE_SURROGATE),
                },
            }
            at += 1;
        }
        Step::More
    }

    fn keep(&mut self, bytes: &[u8]) {
        if !self.hollow {
            self.text.extend_from_slice(bytes);
        }
    }

    fn escape(&mut self, byte: u8) -> Option<StringState> {
        let meant = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return Some(StringState::Unicode(0, 0, None)),
            _ => return None,
        };
        self.keep(&[meant]);
        Some(StringState::Plain)
    }

    /// Takes a UTF-16 code unit: a character, or half of one.
    fn unit(&mut self, unit: u16, high: Option<u16>) -> Result<(), &'static str> {
        if high.is_none() && (0xd800..0xdc00).contains(&unit) {
            self.state = StringState::PairEscape(unit);
            return Ok(());
        }
        let units = high.into_iter().chain([unit]);
        let character = char::decode_utf16(units).next().and_then(Result::ok).ok_or(LONE_SURROGATE)?;
        self.keep(character.encode_utf8(&mut [0; 4]).as_bytes());
        self.state = StringState::Plain;
        Ok(())
    }

    fn end(&mut self, used: usize) -> Step<String> {
        match String::from_utf8(std::mem::take(&mut self.text)) {
            Ok(text) => Step::Done(used, text),
            Err(_) => Step::Bad(used - 1, NOT_UTF8),
        }
    }
}

/// The number of bytes from the front that need no unescaping.
fn plain_run(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len())
}

/// A number so far.
pub(crate) struct NumberScan {
    text: Vec<u8>,
    state: NumberState,
    hollow: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum NumberState {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl NumberScan {
    /// A number that begins with `byte`, if that is possible.
    pub(crate) fn begin(byte: u8) -> Option<NumberScan> {
        let state = match byte {
            b'-' => NumberState::Minus,
            b'0' => NumberState::Zero,
            b'1'..=b'9' => NumberState::Whole,
            _ => return None,
        };
        Some(NumberScan { text: vec![byte], state, hollow: false })
    }

    /// Stops storing.
    pub(crate) fn empty(&mut self) {
        self.hollow = true;
        self.text = Vec::new();
    }

    /// Takes the bytes of the number; the byte after it is not used.
    pub(crate) fn push(&mut self, input: &[u8]) -> Step<Number> {
        for (at, &byte) in input.iter().enumerate() {
            match self.after(byte) {
                Some(state) => {
                    self.state = state;
                    if !self.hollow {
                        self.text.push(byte);
                    }
                }
                None => {
                    return match self.finished() {
                        Some(number) => Step::Done(at, number),
                        None => Step::Bad(at, "a number that breaks off"),
                    };
                }
            }
        }
        Step::More
    }

    fn after(&self, byte: u8) -> Option<NumberState> {
        use NumberState::{E, Exponent, Fraction, Minus, Point, Sign, Whole, Zero};
        match (self.state, byte) {
            (Minus, b'0') => Some(Zero),
            (Minus | Whole, b'0'..=b'9') => Some(Whole),
            (Zero | Whole, b'.') => Some(Point),
            (Point | Fraction, b'0'..=b'9') => Some(Fraction),
            (Zero | Whole | Fraction, b'e' | b'E') => Some(E),
            (E, b'+' | b'-') => Some(Sign),
            (E | Sign | Exponent, b'0'..=b'9') => Some(Exponent),
            _ => None,
        }
    }

    /// The number, if it may end here.
    pub(crate) fn finished(&self) -> Option<Number> {
        use NumberState::{Exponent, Fraction, Whole, Zero};
        let complete = matches!(self.state, Zero | Whole | Fraction | Exponent);
        // Only ASCII was pushed.
        complete.then(|| std::str::from_utf8(&self.text).ok().map(Number::new)).flatten()
    }
}

/// One of the three words.
pub(crate) struct WordScan {
    word: &'static str,
    came: usize,
}

impl WordScan {
    /// The word that begins with `byte`, if any.
    pub(crate) fn begin(byte: u8) -> Option<WordScan> {
        let word = match byte {
            b't' => "true",
            b'f' => "false",
            b'n' => "null",
            _ => return None,
        };
        Some(WordScan { word, came: 1 })
    }

    pub(crate) fn push(&mut self, input: &[u8]) -> Step<Value> {
        for (at, &byte) in input.iter().enumerate() {
            if byte != self.word.as_bytes()[self.came] {
                return Step::Bad(at, "a word other than true, false and null");
            }
            self.came += 1;
            if self.came == self.word.len() {
                let value = match self.word {
                    "null" => Value::Null,
                    word => Value::Bool(word == "true"),
                };
                return Step::Done(at + 1, value);
            }
        }
        Step::More
    }
}
