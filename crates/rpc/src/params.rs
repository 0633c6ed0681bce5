//! Parameters as plain structs, decoded by SPDK's rules.
//!
//! A struct derives `Deserialize` with `deny_unknown_fields`: unknown, duplicate and missing members fail. An
//! `Option` is a member that may be absent; a null in its place fails, as in SPDK. Integers are read by
//! [`Number::as_u64`](crate::Number::as_u64); a string for a number, a number for a boolean and a NUL in a
//! string fail. A refusal says in JSON's words what the member is and what it should be.

use std::cell::Cell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::number::{NotAnInteger, Number};
use crate::request::shown;
use crate::value::Value;

/// The first words about a member that is not known.
const NO_PARAMETER: &str = "no parameter is called";

/// The wrong parameter and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    path: String,
    what: String,
}

impl ParamError {
    fn is_not(found: &str, expected: &str) -> ParamError {
        de::Error::custom(format_args!("is {found}, not {expected}"))
    }

    /// Adds the name of the enclosing member.
    fn within(mut self, name: &str) -> ParamError {
        let inner = std::mem::take(&mut self.path);
        self.path = match inner.chars().next() {
            None => shown(name),
            Some('[') => format!("{}{inner}", shown(name)),
            Some(_) => format!("{}.{inner}", shown(name)),
        };
        self
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" if self.what.starts_with("is ") => write!(f, "'params' {}", self.what),
            "" => f.write_str(&self.what),
            path if self.what.starts_with(NO_PARAMETER) => write!(f, "in '{path}' {}", self.what),
            path => write!(f, "'{path}' {}", self.what),
        }
    }
}

impl std::error::Error for ParamError {}

impl de::Error for ParamError {
    fn custom<T: fmt::Display>(what: T) -> ParamError {
        ParamError { path: String::new(), what: what.to_string() }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> ParamError {
        ParamError::is_not(&unexpected_words(unexpected), &expected_words(expected))
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> ParamError {
        ParamError::invalid_type(unexpected, expected)
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> ParamError {
        ParamError::is_not(&format!("an array of {length}"), &expected_words(expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> ParamError {
        let known = if expected.is_empty() { "it has none".to_owned() } else { expected.join(", ") };
        ParamError::custom(format_args!("{NO_PARAMETER} '{}'; known: {known}", shown(field)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> ParamError {
        ParamError::is_not(&quoted(variant), &one_of(expected))
    }

    fn missing_field(field: &'static str) -> ParamError {
        ParamError::custom("is missing").within(field)
    }

    fn duplicate_field(field: &'static str) -> ParamError {
        ParamError::custom("is given twice; give it once").within(field)
    }
}

/// A string from outside, for a message.
fn quoted(text: &str) -> String {
    format!("{:?}", shown(text))
}

fn one_of(names: &[&str]) -> String {
    format!("one of {}", names.join(", "))
}

/// What a parameter is.
fn words(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => shown(number.text()),
        Value::String(text) => quoted(text),
        Value::Null | Value::Array(_) | Value::Object(_) => value.kind().to_owned(),
    }
}

/// The same of what serde found.
fn unexpected_words(unexpected: de::Unexpected<'_>) -> String {
    match unexpected {
        de::Unexpected::Unit => "null".to_owned(),
        de::Unexpected::Bool(value) => value.to_string(),
        de::Unexpected::Unsigned(number) => number.to_string(),
        de::Unexpected::Signed(number) => number.to_string(),
        de::Unexpected::Str(text) => quoted(text),
        de::Unexpected::Seq => "an array".to_owned(),
        de::Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// What serde expects, by the name that it gives it.
fn expected_words(expected: &dyn de::Expected) -> String {
    let name = expected.to_string();
    if let Some(size) = name.strip_prefix("a tuple of size ") {
        return format!("an array of {size}");
    }
    if let Some((least, most)) = range_of(&name) {
        return format!("an integer from {least} to {most}");
    }
    let words = match name.as_str() {
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        "path string" => "a string",
        other => other,
    };
    words.to_owned()
}

/// The least and the greatest value of an integer type, by the name that serde gives it.
fn range_of(name: &str) -> Option<(i128, i128)> {
    Some(match name {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" => (0, u64::MAX.into()),
        "i8" => (i8::MIN.into(), i8::MAX.into()),
        "i16" => (i16::MIN.into(), i16::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        "i64" => (i64::MIN.into(), i64::MAX.into()),
        _ => return None,
    })
}

/// Decodes parameters.
///
/// # Errors
/// [`ParamError`] names the member and the reason.
pub fn from_value<P: DeserializeOwned>(value: &Value) -> Result<P, ParamError> {
    P::deserialize(Strict(value))
}

/// The names of the members of `P`, a struct that derives `Deserialize`; none for another type.
pub fn names<P: DeserializeOwned>() -> &'static [&'static str] {
    let found = Cell::new(&[] as &[&str]);
    // It returns no value; it only records what the type asks for.
    let _ = P::deserialize(Listen(&found));
    found.get()
}

struct Strict<'a>(&'a Value);

impl Strict<'_> {
    fn is_not(&self, expected: &str) -> ParamError {
        ParamError::is_not(&words(self.0), expected)
    }

    /// The number, read as an integer.
    fn integer<I>(
        &self,
        read: impl Fn(&Number) -> Result<I, NotAnInteger>,
        expected: &dyn de::Expected,
    ) -> Result<I, ParamError> {
        let integer = match self.0 {
            Value::Number(number) => read(number).ok(),
            _ => None,
        };
        integer.ok_or_else(|| self.is_not(&expected_words(expected)))
    }

    fn text(&self, expected: impl Fn() -> String) -> Result<&str, ParamError> {
        match self.0 {
            Value::String(text) if text.contains('\0') => {
                Err(ParamError::custom("has a NUL character in it; leave that out"))
            }
            Value::String(text) => Ok(text),
            _ => Err(self.is_not(&expected())),
        }
    }
}

macro_rules! integers {
    ($($method:ident $read:ident $visit:ident,)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParamError> {
            let value = self.integer(Number::$read, &visitor)?;
            visitor.$visit(value)
        })+
    };
}

impl<'de> Deserializer<'de> for Strict<'de> {
    type Error = ParamError;

    integers! {
        deserialize_u8 as_u64 visit_u64,
        deserialize_u16 as_u64 visit_u64,
        deserialize_u32 as_u64 visit_u64,
        deserialize_u64 as_u64 visit_u64,
        deserialize_i8 as_i64 visit_i64,
        deserialize_i16 as_i64 visit_i64,
        deserialize_i32 as_i64 visit_i64,
        deserialize_i64 as_i64 visit_i64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParamError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match number.as_u64() {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => {
                    let value = self.integer(Number::as_i64, &visitor)?;
                    visitor.visit_i64(value)
                }
            },
            Value::String(_) => visitor.visit_borrowed_str(match self.0 {
                Value::String(text) => text,
                _ => unreachable!("matched as a string"),
            }),
            Value::Array(elements) => visitor.visit_seq(Elements { elements, next: 0 }),
            Value::Object(members) => visitor.visit_map(Members { members, next: 0 }),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParamError> {
        let text = self.text(|| expected_words(&visitor))?;
        visitor.visit_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParamError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParamError> {
        // A null too: the type inside the option refuses it.
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ParamError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParamError> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Members { members, next: 0 }),
            _ => Err(self.is_not("an object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParamError> {
        let name: StrDeserializer<'_, ParamError> = self.text(|| one_of(variants))?.into_deserializer();
        visitor.visit_enum(name)
    }

    /// An ignored value may be of any kind.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParamError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct Elements<'de> {
    elements: &'de [Value],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = ParamError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ParamError> {
        let place = self.next;
        let Some(element) = self.elements.get(place) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(Strict(element)).map(Some).map_err(|error| error.within(&format!("[{place}]")))
    }
}

struct Members<'de> {
    members: &'de [(String, Value)],
    next: usize,
}

impl<'de> de::MapAccess<'de> for Members<'de> {
    type Error = ParamError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ParamError> {
        let Some((name, _)) = self.members.get(self.next) else { return Ok(None) };
        let name: StrDeserializer<'_, ParamError> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ParamError> {
        let (name, value) = &self.members[self.next];
        self.next += 1;
        seed.deserialize(Strict(value)).map_err(|error| error.within(name))
    }
}

/// Records which members a struct asks for, and returns no value.
struct Listen<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Listen<'_> {
    type Error = ParamError;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, ParamError> {
        Err(ParamError::custom("only listening"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParamError> {
        self.0.set(fields);
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
