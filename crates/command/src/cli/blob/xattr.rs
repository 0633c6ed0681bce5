//! `spindle blob xattr`: attributes that programs keep beside a blob's data.

use super::describe::XattrsJson;
use super::lvol;
use super::naming::{OWN, check_free, check_name, fits, is_reserved};
use super::reading::attended;
use super::select::find;
use super::session::Session;
use super::source::{Source, load};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, tell};
use crate::cli::text::{before_nul, printable};
use spindle_blob::{BlobError, BlobId};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Arguments of `xattr`.
#[derive(clap::Args)]
pub(crate) struct Xattr {
    #[command(flatten)]
    source: Source,
    /// The blob: its id (decimal, or hexadecimal with 0x) or its name
    #[arg(value_name = "BLOB")]
    blob: OsString,
    #[command(subcommand)]
    what: Option<What>,
    /// Print all of its xattrs as JSON, values in hexadecimal
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// List all xattrs (the default)
    List,
    /// Print the bytes of a value as they are
    Get {
        /// The xattr
        #[arg(value_name = "KEY")]
        key: OsString,
    },
    /// Set an xattr
    Set {
        /// The xattr
        #[arg(value_name = "KEY")]
        key: OsString,
        /// Its new value
        #[arg(value_name = "VALUE")]
        value: OsString,
    },
    /// Remove an xattr
    Rm {
        /// The xattr
        #[arg(value_name = "KEY")]
        key: OsString,
    },
}

/// A change of one xattr.
enum Change {
    Set(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
}

impl Xattr {
    pub(super) fn run(self) -> Result<(), Failure> {
        let change = match self.what {
            None | Some(What::List) => {
                return attended("xattr", || list(&self.source, &self.blob, self.json));
            }
            Some(What::Get { key }) => {
                return attended("xattr", || get(&self.source, &self.blob, key.as_bytes()));
            }
            Some(What::Set { key, .. }) if is_reserved(key.as_bytes()) => {
                return Err(Failure::Usage(format!("{}: {OWN}", printable(key.as_bytes()))));
            }
            Some(What::Set { key, value }) if key.as_bytes() == b"name" => {
                check_name(value.as_bytes()).map_err(Failure::Usage)?;
                Change::Set(key.into_vec(), value.into_vec())
            }
            Some(What::Set { key, value }) => {
                fits(key.as_bytes(), value.as_bytes()).map_err(Failure::Usage)?;
                Change::Set(key.into_vec(), value.into_vec())
            }
            Some(What::Rm { key }) => Change::Remove(key.into_vec()),
        };
        let asked = self.blob;
        let xattrs = super::session::change(&self.source, async move |session: &Session| {
            let id = session.find(&asked).await?;
            make(session, id, change).await?;
            Ok((id, session.store.blob_xattrs(id).await?))
        })?;
        let (id, xattrs) = xattrs;
        tell(|| format!("changed the xattrs of blob {id}"), |out| write(&xattrs, self.json, out))
    }
}

/// Reads without changing or locking the image, like the other commands that only read.
fn list(source: &Source, asked: &OsString, json: bool) -> Result<(), Failure> {
    let (image, _) = source.open()?;
    let store = load(&image)?;
    let blob = find(&store, image.path(), asked)?;
    print(blob.metadata.xattrs.iter().as_slice(), json)
}

fn get(source: &Source, asked: &OsString, key: &[u8]) -> Result<(), Failure> {
    let (image, _) = source.open()?;
    let store = load(&image)?;
    let blob = find(&store, image.path(), asked)?;
    let missing = || BlobError::NoSuchXattr { blob: blob.id, name: printable(key) };
    let value = blob.metadata.xattrs.get(key).ok_or_else(missing)?;
    let mut out = Output::stdout();
    out.write_all(value)?;
    out.finish()
}

async fn make(session: &Session, id: BlobId, change: Change) -> Result<(), Failure> {
    let change = checked(session, id, change).await?;
    let blob = session.store.open_blob(id).await?;
    let made = match change {
        Change::Set(key, value) => blob.set_xattr(key, value).await,
        Change::Remove(key) => blob.remove_xattr(key).await,
    };
    let closed = blob.close().await;
    made?;
    Ok(closed?)
}

/// A change in the store's form: names must be free, and lvolstores store names and UUIDs as SPDK does.
async fn checked(session: &Session, id: BlobId, change: Change) -> Result<Change, Failure> {
    let lvols = lvol::is_lvolstore(session).await?;
    match change {
        Change::Set(key, value) if key == b"name" => {
            let own = session.live(id).await?;
            if own.name() != Some(before_nul(&value)) {
                check_free(session, &value).await?;
            }
            Ok(Change::Set(key, if lvols { lvol::name(&value)? } else { value }))
        }
        Change::Set(key, value) if lvols && key == b"uuid" => {
            let uuid = lvol::uuid(&value)?;
            lvol::check_uuid_free(session, &uuid, Some(id)).await?;
            Ok(Change::Set(key, uuid))
        }
        Change::Remove(key) if lvols && (key == b"name" || key == b"uuid") => Err(Failure::Refused(format!(
            "{} is an lvolstore, which needs the {} of every blob: set another one instead",
            session.image(),
            printable(&key)
        ))),
        other => Ok(other),
    }
}

fn print(xattrs: &[spindle_blob::Xattr], json: bool) -> Result<(), Failure> {
    let mut out = Output::stdout();
    write(xattrs, json, &mut out)?;
    out.finish()
}

fn write(xattrs: &[spindle_blob::Xattr], json: bool, out: &mut Output) -> Result<(), Failure> {
    if json {
        return out.json(&XattrsJson(xattrs));
    }
    for xattr in xattrs {
        writeln!(out, "{}={}", printable(&xattr.name), printable(&xattr.value))?;
    }
    Ok(())
}
