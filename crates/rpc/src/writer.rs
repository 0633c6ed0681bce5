//! Values as JSON text: compact, or indented for display.
//!
//! What implements `Serialize` is written in one pass into one string. Members keep their order; the numbers of a
//! [`Value`](crate::Value) are written as they came. The result is valid JSON.

use std::fmt::{self, Write};

use serde::ser::{self, Serialize};

/// The name by which a [`Number`](crate::Number) tells this writer to write its text as it is. Other serialisers take it
/// as text.
pub(crate) const VERBATIM: &str = "$spindle::verbatim";

/// Spaces of one step of the indented form.
const INDENT: usize = 2;

/// A value that JSON cannot have: a map whose keys are neither text nor numbers, or an error of the value's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be written as JSON: {0}")]
pub struct NotJson(String);

impl ser::Error for NotJson {
    fn custom<T: fmt::Display>(what: T) -> NotJson {
        NotJson(what.to_string())
    }
}

/// The value as JSON, without any white space.
///
/// # Errors
/// [`NotJson`]; never for a [`Value`](crate::Value).
pub fn to_json(value: &(impl Serialize + ?Sized)) -> Result<String, NotJson> {
    written(value, Writer { text: String::new(), level: None, verbatim: false })
}

/// The value as JSON, each element and member on a line of its own.
///
/// # Errors
/// As [`to_json`].
pub fn to_json_indented(value: &(impl Serialize + ?Sized)) -> Result<String, NotJson> {
    written(value, Writer { text: String::new(), level: Some(0), verbatim: false })
}

fn written(value: &(impl Serialize + ?Sized), mut writer: Writer) -> Result<String, NotJson> {
    value.serialize(&mut writer)?;
    Ok(writer.text)
}

struct Writer {
    text: String,
    /// How deep the next element is, in the indented form.
    level: Option<usize>,
    /// The next text is written without quotes.
    verbatim: bool,
}

impl Writer {
    fn display(&mut self, value: impl fmt::Display) -> Result<(), NotJson> {
        // Writing to a String does not fail.
        let _ = write!(self.text, "{value}");
        Ok(())
    }

    /// A string in quotes.
    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                control if control < ' ' => {
                    let _ = write!(self.text, "\\u{:04x}", u32::from(control));
                }
                other => self.text.push(other),
            }
        }
        self.text.push('"');
    }

    fn open(&mut self, bracket: char) {
        self.text.push(bracket);
        if let Some(level) = &mut self.level {
            *level += 1;
        }
    }

    /// Ends what `open` began; `is_empty` if nothing was written in between.
    fn close(&mut self, bracket: char, is_empty: bool) {
        if let Some(level) = &mut self.level {
            *level -= 1;
        }
        if !is_empty {
            self.new_line();
        }
        self.text.push(bracket);
    }

    /// Before an element or member.
    fn next(&mut self, is_first: bool) {
        if !is_first {
            self.text.push(',');
        }
        self.new_line();
    }

    fn new_line(&mut self) {
        if let Some(level) = self.level {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', INDENT * level));
        }
    }

    fn colon(&mut self) {
        self.text.push_str(if self.level.is_some() { ": " } else { ":" });
    }

    /// A key of a map: text, or a number or boolean as text.
    fn key(&mut self, key: &(impl Serialize + ?Sized)) -> Result<(), NotJson> {
        let begin = self.text.len();
        key.serialize(&mut *self)?;
        match self.text.as_bytes().get(begin) {
            Some(b'"') => {}
            Some(b'{' | b'[' | b'n') | None => {
                return Err(NotJson("a key is neither text nor a number".to_owned()));
            }
            Some(_) => {
                self.text.insert(begin, '"');
                self.text.push('"');
            }
        }
        self.colon();
        Ok(())
    }

    /// Begins `{"variant":`.
    fn open_variant(&mut self, variant: &str) {
        self.open('{');
        self.next(true);
        self.string(variant);
        self.colon();
    }

    fn parts(&mut self, open: char, close: char, in_variant: bool) -> Parts<'_> {
        self.open(open);
        Parts { writer: self, is_empty: true, close, in_variant }
    }
}

/// An array or object that is being written.
struct Parts<'a> {
    writer: &'a mut Writer,
    is_empty: bool,
    close: char,
    /// An object with the variant's name is around it.
    in_variant: bool,
}

impl Parts<'_> {
    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), NotJson> {
        self.writer.next(self.is_empty);
        self.is_empty = false;
        value.serialize(&mut *self.writer)
    }

    fn member(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<(), NotJson> {
        self.writer.next(self.is_empty);
        self.is_empty = false;
        self.writer.string(key);
        self.writer.colon();
        value.serialize(&mut *self.writer)
    }

    fn finish(self) -> Result<(), NotJson> {
        self.writer.close(self.close, self.is_empty);
        if self.in_variant {
            self.writer.close('}', false);
        }
        Ok(())
    }
}

/// Methods that write a value by its `Display`.
macro_rules! displayed {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<(), NotJson> {
            self.display(value)
        })*
    };
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = NotJson;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    displayed! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128
    }

    fn serialize_f32(self, value: f32) -> Result<(), NotJson> {
        match value.is_finite() {
            true => self.display(format_args!("{value:?}")),
            false => self.serialize_unit(),
        }
    }

    /// NaN and infinities become null.
    fn serialize_f64(self, value: f64) -> Result<(), NotJson> {
        match value.is_finite() {
            true => self.display(format_args!("{value:?}")),
            false => self.serialize_unit(),
        }
    }

    fn serialize_char(self, value: char) -> Result<(), NotJson> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), NotJson> {
        match std::mem::take(&mut self.verbatim) {
            true => self.text.push_str(value),
            false => self.string(value),
        }
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), NotJson> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), NotJson> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotJson> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NotJson> {
        self.display("null")
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), NotJson> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _at: u32,
        variant: &'static str,
    ) -> Result<(), NotJson> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NotJson> {
        self.verbatim = name == VERBATIM;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _at: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), NotJson> {
        self.open_variant(variant);
        value.serialize(&mut *self)?;
        self.close('}', false);
        Ok(())
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Parts<'a>, NotJson> {
        Ok(self.parts('[', ']', false))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Parts<'a>, NotJson> {
        Ok(self.parts('[', ']', false))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Parts<'a>, NotJson> {
        Ok(self.parts('[', ']', false))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _at: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Parts<'a>, NotJson> {
        self.open_variant(variant);
        Ok(self.parts('[', ']', true))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Parts<'a>, NotJson> {
        Ok(self.parts('{', '}', false))
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Parts<'a>, NotJson> {
        Ok(self.parts('{', '}', false))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _at: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Parts<'a>, NotJson> {
        self.open_variant(variant);
        Ok(self.parts('{', '}', true))
    }
}

/// Traits whose parts are the elements of an array.
macro_rules! elements {
    ($($kind:ident $method:ident),*) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = NotJson;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotJson> {
                self.element(value)
            }

            fn end(self) -> Result<(), NotJson> {
                self.finish()
            }
        })*
    };
}

elements!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

/// Traits whose parts are the members of an object.
macro_rules! members {
    ($($kind:ident),*) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = NotJson;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), NotJson> {
                self.member(key, value)
            }

            fn end(self) -> Result<(), NotJson> {
                self.finish()
            }
        })*
    };
}

members!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = NotJson;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NotJson> {
        self.writer.next(self.is_empty);
        self.is_empty = false;
        self.writer.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotJson> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), NotJson> {
        self.finish()
    }
}
