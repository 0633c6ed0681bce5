//! Names and other xattrs of new blobs, as they are typed and as a store must have them.
//!
//! SPDK's lvolstores need more than a bare Blobstore: a blob there without a `name` that ends in a NUL makes
//! SPDK refuse the whole lvolstore, and without a `uuid` it has no stable identity.

use super::describe::name_among;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::text::printable;
use clap::builder::{OsStringValueParser, TypedValueParser};
use spindle_blob::{BsType, Xattr};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Bytes of an lvol's name with its NUL, at most.
const LONGEST_LVOL_NAME: usize = 64;

/// A name and a value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// How a new blob is called.
#[derive(clap::Args, Clone)]
pub(super) struct Naming {
    /// Its name: the xattr `name`, by which every command finds it
    #[arg(long, value_name = "NAME")]
    name: Option<OsString>,
    /// An xattr of it (may be repeated)
    #[arg(
        long = "xattr",
        value_name = "KEY=VALUE",
        value_parser = OsStringValueParser::new().try_map(parse_pair)
    )]
    xattrs: Vec<Pair>,
}

impl Naming {
    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.xattrs.is_empty()
    }

    /// The xattrs that a new blob of this store gets. A name must not be taken.
    pub(super) async fn xattrs(&self, session: &Session) -> Result<Vec<Pair>, Failure> {
        let mut xattrs: Vec<Pair> = Vec::new();
        let name = self.name.iter().map(|name| (b"name".to_vec(), name.as_bytes().to_vec()));
        for (key, value) in name.chain(self.xattrs.iter().cloned()) {
            if xattrs.iter().any(|(other, _)| *other == key) {
                let why = format!("the xattr {} is given twice: give it once", printable(&key));
                return Err(Failure::Usage(why));
            }
            xattrs.push((key, value));
        }
        let lvols = session.info().await?.bs_type == BsType::LVOLSTORE;
        let name = xattrs.iter().find(|(key, _)| key == b"name").map(|(_, value)| value.clone());
        match name {
            Some(name) if name.is_empty() => {
                return Err(Failure::Usage("a name is not empty: leave --name out, or give one".into()));
            }
            Some(name) => check_free(session, &name).await?,
            None if lvols => {
                let image = session.image();
                return Err(Failure::Refused(format!(
                    "{image} is an lvolstore, and SPDK opens none in which a blob has no name: add --name"
                )));
            }
            None => {}
        }
        if lvols { as_lvol(xattrs) } else { Ok(xattrs) }
    }
}

/// Adds what an lvol has beside its name.
fn as_lvol(mut xattrs: Vec<Pair>) -> Result<Vec<Pair>, Failure> {
    for (key, value) in &mut xattrs {
        if key == b"name" {
            *value = lvol_name(value)?;
        }
    }
    if !xattrs.iter().any(|(key, _)| key == b"uuid") {
        xattrs.push((b"uuid".to_vec(), new_uuid()?));
    }
    Ok(xattrs)
}

/// A name as lvolstores keep it, with its NUL.
pub(super) fn lvol_name(name: &[u8]) -> Result<Vec<u8>, Failure> {
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    if name.is_empty() || name.contains(&0) || name.len() >= LONGEST_LVOL_NAME {
        return Err(Failure::Refused(format!(
            "{} cannot name a blob of an lvolstore: a name has 1 to {} bytes, none of them NUL",
            printable(name),
            LONGEST_LVOL_NAME - 1
        )));
    }
    Ok([name, b"\0"].concat())
}

/// An error if a blob goes by this name already.
pub(super) async fn check_free(session: &Session, name: &[u8]) -> Result<(), Failure> {
    let name = crate::cli::text::before_nul(name);
    let entries = session.entries().await?;
    let taken = entries.iter().find(|entry| entry.name.as_deref() == Some(name));
    match taken {
        Some(entry) => Err(Failure::Refused(format!(
            "{} is the name of blob {} of {}: choose another",
            printable(name),
            entry.id,
            session.image()
        ))),
        None => Ok(()),
    }
}

/// The name among xattrs.
pub(super) fn name_of(xattrs: &[Xattr]) -> Option<Vec<u8>> {
    name_among(xattrs).map(<[u8]>::to_vec)
}

/// Takes `KEY=VALUE` apart; the value may hold anything.
fn parse_pair(argument: OsString) -> Result<Pair, &'static str> {
    let mut key = argument.into_vec();
    let equals = key.iter().position(|&byte| byte == b'=').ok_or("it must be KEY=VALUE")?;
    let value = key.split_off(equals + 1);
    key.truncate(equals);
    if key.is_empty() { Err("it must be KEY=VALUE, and KEY not empty") } else { Ok((key, value)) }
}

/// A random UUID (version 4) as text with its NUL, as lvolstores keep it.
pub(super) fn new_uuid() -> Result<Vec<u8>, Failure> {
    let path = std::path::Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Failure::file(path, "read", error))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = crate::cli::text::hex(&bytes);
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Ok([groups.join("-").as_bytes(), b"\0"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(parse_pair("a=b=c".into()), Ok((b"a".to_vec(), b"b=c".to_vec())));
        assert_eq!(parse_pair("a=".into()), Ok((b"a".to_vec(), Vec::new())));
        assert!(parse_pair("a".into()).is_err() && parse_pair("=b".into()).is_err());
    }

    #[test]
    fn a_new_uuid_is_text_of_36_bytes_with_a_nul_and_no_two_are_the_same() {
        let (one, two) = (new_uuid().unwrap(), new_uuid().unwrap());
        assert_eq!((one.len(), one[36], one[14]), (37, 0, b'4'));
        assert_ne!(one, two);
    }

    #[test]
    fn an_lvol_name_ends_in_one_nul_and_has_at_most_64_bytes() {
        assert_eq!(lvol_name(b"disk").unwrap(), b"disk\0");
        assert_eq!(lvol_name(b"disk\0").unwrap(), b"disk\0");
        assert_eq!(lvol_name(&[b'x'; 63]).unwrap().len(), 64);
        assert!(lvol_name(&[b'x'; 64]).is_err() && lvol_name(b"").is_err() && lvol_name(b"a\0b").is_err());
    }
}
