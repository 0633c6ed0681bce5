//! External snapshots as the command line names them: `--esnap UUID=FILE`.

use super::image::ImageFile;
use crate::cli::failure::{Failure, shown};
use crate::cli::text::external_id;
use spindle_blob::ExternalSource;
use spindle_block::{Device, FileOptions};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// One `--esnap UUID=FILE`.
#[derive(Clone, Debug)]
pub(super) struct ExternalArgument {
    id: String,
    path: PathBuf,
}

impl ExternalArgument {
    /// Takes `UUID=FILE` apart; the file's name may hold anything.
    pub(super) fn parse(argument: OsString) -> Result<ExternalArgument, &'static str> {
        let bytes = argument.as_bytes();
        let Some(equals) = bytes.iter().position(|&byte| byte == b'=') else {
            return Err("it must be UUID=FILE");
        };
        let (id, path) = (&bytes[..equals], &bytes[equals + 1..]);
        if id.is_empty() || path.is_empty() {
            return Err("it must be UUID=FILE, neither of them empty");
        }
        let id = std::str::from_utf8(id).map_err(|_| "the UUID must be text")?.to_owned();
        Ok(ExternalArgument { id, path: PathBuf::from(OsStr::from_bytes(path)) })
    }
}

/// The given external snapshots, opened for reading only.
#[derive(Debug)]
pub(super) struct Externals(BTreeMap<String, ImageFile>);

impl Externals {
    /// Opens every named file.
    pub(super) fn open(arguments: &[ExternalArgument]) -> Result<Externals, Failure> {
        let mut files = BTreeMap::new();
        for argument in arguments {
            let file = ImageFile::open(&argument.path)?;
            if files.insert(argument.id.to_ascii_lowercase(), file).is_some() {
                return Err(Failure::Usage(format!("--esnap {} is given twice: give it once", argument.id)));
            }
        }
        Ok(Externals(files))
    }

    /// The file given for an external snapshot. UUIDs are compared without regard to case.
    pub(super) fn get(&self, id: &[u8]) -> Option<&ImageFile> {
        self.0.get(&external_id(id).to_ascii_lowercase())
    }

    /// All files, to check that an output is none of them.
    pub(super) fn files(&self) -> impl Iterator<Item = &ImageFile> {
        self.0.values()
    }
}

/// The given external snapshots, as devices for the store that a command changes.
pub(super) async fn devices(arguments: Vec<ExternalArgument>) -> Result<ExternalSource, Failure> {
    // The same checks and errors as in the commands that read.
    Externals::open(&arguments)?;
    let mut devices: BTreeMap<String, Arc<dyn Device>> = BTreeMap::new();
    for argument in arguments {
        let options = FileOptions::new(&argument.path).name(shown(&argument.path));
        devices.insert(argument.id.to_ascii_lowercase(), spindle_block::File::open(options).await?);
    }
    Ok(Arc::new(move |id: &[u8]| devices.get(&external_id(id).to_ascii_lowercase()).cloned()))
}

/// An id of an external snapshot, as a clone carries it.
#[derive(Clone)]
pub(super) struct SnapshotId(pub(super) Vec<u8>);

impl FromStr for SnapshotId {
    type Err = String;

    fn from_str(typed: &str) -> Result<SnapshotId, String> {
        parse_id(typed).map(SnapshotId)
    }
}

/// Parses the typed form: text gets the NUL that SPDK's lvolstores append, `0x` introduces the bytes
/// themselves.
fn parse_id(typed: &str) -> Result<Vec<u8>, String> {
    let Some(digits) = typed.strip_prefix("0x") else {
        return match typed.is_empty() || typed.contains('\0') {
            true => Err("an id of an external snapshot is text, as a UUID, or 0x and hexadecimal".into()),
            false => Ok([typed.as_bytes(), b"\0"].concat()),
        };
    };
    let bytes = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(|| "0x is followed by pairs of hexadecimal digits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_printed() {
        assert_eq!(parse_id("3f1f-8f0a").unwrap(), b"3f1f-8f0a\0");
        assert_eq!(parse_id("0x01ff").unwrap(), [1, 0xff]);
        for id in [&b"uuid\0"[..], &[0, 1], b"a b"] {
            assert_eq!(parse_id(&external_id(id)).unwrap(), id);
        }
        for wrong in ["", "0x", "0x1", "0x+1", "0xgg"] {
            assert!(parse_id(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_argument_is_split_at_its_first_equals_sign() {
        let argument = ExternalArgument::parse("3F1F=a=b".into()).unwrap();
        assert_eq!((argument.id.as_str(), argument.path), ("3F1F", PathBuf::from("a=b")));
        for wrong in ["", "3f1f", "=file", "3f1f="] {
            assert!(ExternalArgument::parse(wrong.into()).is_err(), "{wrong:?}");
        }
    }
}
