//! Names and other xattrs of new blobs, as typed and as the store requires them: an lvolstore requires more
//! than a bare Blobstore ([`lvol`]).

use super::describe::name_among;
use super::lvol;
use super::select::looks_like_id;
use super::session::Session;
use crate::cli::failure::Failure;
use crate::cli::text::printable;
use clap::builder::{OsStringValueParser, TypedValueParser};
use spindle_blob::Xattr;
use spindle_format::Xattrs;
use spindle_format::metadata::RESERVED;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A name and a value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// How a new blob is called.
#[derive(clap::Args, Clone)]
pub(super) struct Naming {
    /// Its name (the xattr `name`), which all commands accept
    #[arg(
        long,
        value_name = "NAME",
        value_parser = OsStringValueParser::new().try_map(parse_name)
    )]
    name: Option<OsString>,
    /// An xattr of the new blob (may be repeated)
    #[arg(
        long = "xattr",
        value_name = "KEY=VALUE",
        value_parser = OsStringValueParser::new().try_map(parse_pair)
    )]
    xattrs: Vec<Pair>,
}

impl Naming {
    /// True if none were given.
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.xattrs.is_empty()
    }

    /// The xattrs of a new blob in this store. Its name must be free.
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
        let lvols = lvol::is_lvolstore(session).await?;
        let name = xattrs.iter().find(|(key, _)| key == b"name").map(|(_, value)| value.clone());
        match name {
            Some(name) => check_free(session, &name).await?,
            None if lvols => {
                let image = session.image();
                return Err(Failure::Refused(format!(
                    "{image} is an lvolstore, and SPDK opens none in which a blob has no name: add --name"
                )));
            }
            None => {}
        }
        if lvols { as_lvol(session, xattrs).await } else { Ok(xattrs) }
    }
}

/// The xattrs of a volume as SPDK stores them, with a UUID if none was given.
async fn as_lvol(session: &Session, mut xattrs: Vec<Pair>) -> Result<Vec<Pair>, Failure> {
    for (key, value) in &mut xattrs {
        match key.as_slice() {
            b"name" => *value = lvol::name(value)?,
            b"uuid" => {
                *value = lvol::uuid(value)?;
                lvol::check_uuid_free(session, value, None).await?;
            }
            _ => {}
        }
    }
    if !xattrs.iter().any(|(key, _)| key == b"uuid") {
        xattrs.push((b"uuid".to_vec(), lvol::new_uuid()?));
    }
    Ok(xattrs)
}

/// An error if a blob cannot have this name in any store.
pub(super) fn check_name(name: &[u8]) -> Result<(), String> {
    let name = crate::cli::text::before_nul(name);
    if name.is_empty() {
        return Err("a name is not empty: leave it out, or give one".into());
    }
    if looks_like_id(name) {
        let name = printable(name);
        return Err(format!(
            "{name} would be taken for the id of a blob: choose a name with another character in it"
        ));
    }
    fits(b"name", name)
}

/// An error if the store has no room for an xattr of this size.
pub(super) fn fits(key: &[u8], value: &[u8]) -> Result<(), String> {
    Xattrs::new().set(key, value).map_err(|error| error.to_string())
}

fn parse_name(name: OsString) -> Result<OsString, String> {
    check_name(name.as_bytes()).map(|()| name)
}

/// An error if a blob has this name already.
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

/// Splits `KEY=VALUE`; the value may hold anything.
fn parse_pair(argument: OsString) -> Result<Pair, String> {
    let mut key = argument.into_vec();
    let equals = key.iter().position(|&byte| byte == b'=').ok_or("it must be KEY=VALUE")?;
    let value = key.split_off(equals + 1);
    key.truncate(equals);
    match key.as_slice() {
        [] => return Err("it must be KEY=VALUE, and KEY not empty".into()),
        b"name" => check_name(&value)?,
        reserved if is_reserved(reserved) => return Err(OWN.into()),
        other => fits(other, &value)?,
    }
    Ok((key, value))
}

/// The error for an xattr that commands set only for themselves.
pub(super) const OWN: &str =
    "xattrs whose names begin with \"spindle.\" are spindle's own: choose another name";

/// Whether an xattr of this name is one that commands set only for themselves.
pub(super) fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(parse_pair("a=b=c".into()), Ok((b"a".to_vec(), b"b=c".to_vec())));
        assert_eq!(parse_pair("a=".into()), Ok((b"a".to_vec(), Vec::new())));
        assert!(parse_pair("a".into()).is_err() && parse_pair("=b".into()).is_err());
        assert!(parse_pair("name=".into()).is_err() && parse_pair("name=5".into()).is_err());
        assert!(parse_pair("spindle.importing=b".into()).is_err() && parse_pair("spindle=b".into()).is_ok());
    }
}
