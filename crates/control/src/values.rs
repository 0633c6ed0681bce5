//! Checked types for parameters that many methods share, and values of other crates as JSON.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spindle_bdev::{BdevError, Detail};
use spindle_rpc::{Errno, RpcError};

/// A UUID as SPDK takes it: 36 characters with hyphens, in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) spindle_bdev::Uuid);

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        deserializer.deserialize_str(UuidVisitor)
    }
}

struct UuidVisitor;

impl Visitor<'_> for UuidVisitor {
    type Value = Uuid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in hex")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Uuid, E> {
        parse_uuid(text).map(Uuid).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A UUID in its form with hyphens; other forms are refused.
pub(crate) fn parse_uuid(text: &str) -> Option<spindle_bdev::Uuid> {
    const LENGTH: usize = 36;
    if text.len() != LENGTH {
        return None;
    }
    spindle_bdev::Uuid::try_parse(text).ok()
}

/// A module's information on a bdev, as JSON.
pub(crate) struct Details(pub(crate) Detail);

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_detail(&self.0, serializer)
    }
}

struct Borrowed<'a>(&'a Detail);

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_detail(self.0, serializer)
    }
}

fn serialize_detail<S: Serializer>(detail: &Detail, serializer: S) -> Result<S::Ok, S::Error> {
    match detail {
        Detail::Bool(value) => serializer.serialize_bool(*value),
        Detail::Number(value) => serializer.serialize_u64(*value),
        Detail::Signed(value) => serializer.serialize_i64(*value),
        Detail::Text(value) => serializer.serialize_str(value),
        Detail::List(values) => {
            let mut sequence = serializer.serialize_seq(Some(values.len()))?;
            values.iter().try_for_each(|value| sequence.serialize_element(&Borrowed(value)))?;
            sequence.end()
        }
        Detail::Object(members) => {
            let mut map = serializer.serialize_map(Some(members.len()))?;
            members.iter().try_for_each(|(name, value)| map.serialize_entry(name, &Borrowed(value)))?;
            map.end()
        }
    }
}

/// The answer to an error of the bdev layer: its errno as the code. For methods of modules, too.
pub fn refused(error: BdevError) -> RpcError {
    RpcError::errno(Errno::from_raw(error.errno()), error)
}

/// The answer to a known but unimplemented parameter.
pub(crate) fn not_implemented(parameter: &str, only: &str) -> RpcError {
    RpcError::errno(
        Errno::OPNOTSUPP,
        format!("'{parameter}' is implemented only for {only}; give that, or leave it out"),
    )
}
