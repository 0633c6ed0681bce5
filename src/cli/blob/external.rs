//! External snapshots as the command line names them: `--esnap UUID=FILE`.

use super::image::ImageFile;
use crate::cli::failure::Failure;
use crate::cli::text::external_id;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

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

/// The external snapshots that were given, opened for reading only.
#[derive(Debug)]
pub(super) struct Externals(BTreeMap<String, ImageFile>);

impl Externals {
    /// Opens every file that was named.
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

    /// The file that stands for an external snapshot. UUIDs are compared without regard to case.
    pub(super) fn get(&self, id: &[u8]) -> Option<&ImageFile> {
        self.0.get(&external_id(id).to_ascii_lowercase())
    }

    /// All files, to tell them from an output.
    pub(super) fn files(&self) -> impl Iterator<Item = &ImageFile> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_split_at_its_first_equals_sign() {
        let argument = ExternalArgument::parse("3F1F=a=b".into()).unwrap();
        assert_eq!((argument.id.as_str(), argument.path), ("3F1F", PathBuf::from("a=b")));
        for wrong in ["", "3f1f", "=file", "3f1f="] {
            assert!(ExternalArgument::parse(wrong.into()).is_err(), "{wrong:?}");
        }
    }
}
