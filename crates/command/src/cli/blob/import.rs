//! `spindle blob import`: the contents of a file, device or stream as a blob.
//!
//! Streams, with a bounded number of writes in flight. Afterwards the blob holds the input and then zeroes. A
//! new blob gets its name last ([`unfinished`](super::unfinished)), and is removed again if the import fails.

use super::create::rounded;
use super::describe::{BlobJson, Live};
use super::image::ImageFile;
use super::input::{Grain, Input, Piece, input_name};
use super::lvol::refuse_super_blob;
use super::naming::Naming;
use super::parents::refuse_unreadable;
use super::session::{Session, change};
use super::signature::encoding;
use super::source::Source;
use super::unfinished::Unfinished;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, note, tell};
use crate::cli::progress::Progress;
use crate::cli::size;
use crate::cli::text::{self, count};
use spindle_blob::{Blob, BlobError, BlobOptions, Replacement};
use spindle_engine::share_bytes;
use spindle_reactor::{LocalJoinHandle, spawn_local};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

/// Writes in flight.
const DEPTH: usize = 16;

/// The unit in which zeroes are distinguished from data, or a cluster if that is smaller.
const ZERO_GRAIN: u64 = 64 << 10;

/// Clusters by which a blob grows when the length of its input is unknown.
const GROWTH: u64 = 64;

/// Arguments of `import`.
#[derive(clap::Args)]
#[command(override_usage = "spindle blob import [OPTIONS] <IMAGE> <BLOB> <FILE>\n       \
    spindle blob import [OPTIONS] --create <IMAGE> <FILE>")]
pub(crate) struct Import {
    #[command(flatten)]
    source: Source,
    /// The blob to overwrite: its id (decimal, or hexadecimal with 0x) or its name. Then the file; - is
    /// standard input
    #[arg(value_names = ["BLOB", "FILE"], num_args = 1..=2, required = true)]
    names: Vec<OsString>,
    /// Overwrite the blob in place: a kill leaves a mixture. Without it, the new contents are written beside the
    /// old, which takes as much space again, and replace them in one step when they are complete: a kill leaves the
    /// old or the new contents
    #[arg(long, conflicts_with = "create")]
    in_place: bool,
    /// Create a blob, as large as the input rounded up to whole clusters
    #[arg(long)]
    create: bool,
    /// Allocate clusters of the new blob for data only, not for zeroes
    #[arg(long, requires = "create")]
    thin: bool,
    /// Make the new blob larger than the input
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "create")]
    size: Option<u64>,
    #[command(flatten)]
    naming: Naming,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// The result of an import.
struct Imported {
    blob: Live,
    bytes: u64,
    written: u64,
}

/// As JSON. Scripts rely on these names; sizes are in bytes.
#[derive(serde::Serialize)]
struct Report<'a> {
    blob: BlobJson<'a>,
    /// Of the input.
    bytes: u64,
    /// Written as data.
    written: u64,
    /// The rest of the input, which was zeroes.
    zeroes: u64,
    /// Zeroes after the input, up to the end of the blob.
    padding: u64,
}

/// Where the input goes.
enum Target {
    New { thin: bool, size: Option<u64>, naming: Naming },
    Existing { asked: OsString, in_place: bool },
}

impl Import {
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let path = PathBuf::from(self.names.pop().unwrap_or_default());
        let target = match (self.create, self.names.pop()) {
            (true, None) => Target::New { thin: self.thin, size: self.size, naming: self.naming },
            (false, Some(asked)) if self.naming.is_empty() => {
                Target::Existing { asked, in_place: self.in_place }
            }
            (false, Some(_)) => return usage("--name and --xattr are for a new blob: add --create"),
            (false, None) => return usage("name the BLOB to overwrite and the FILE, or add --create"),
            (true, Some(_)) => {
                return usage("--create makes a blob: name only the FILE, and the blob by --name");
            }
        };
        let (file, length) = Input::open(&path)?;
        refuse_image(&self.source, &file, &path)?;
        note_encoding(&file, &path);
        let name = input_name(&path);
        let name_again = name.clone();
        let done =
            change(&self.source, async move |session| import(session, target, file, length, &name).await)?;
        tell(
            || format!("imported {name_again} into blob {}", done.blob.label()),
            |out| print(&done, self.json, out),
        )
    }
}

fn usage(why: &str) -> Result<(), Failure> {
    Err(Failure::Usage(why.into()))
}

/// An image cannot be imported into itself, nor what it lies on or what lies on it.
fn refuse_image(source: &Source, file: &File, path: &std::path::Path) -> Result<(), Failure> {
    let (image, _) = source.parts();
    match ImageFile::open(&image) {
        Ok(image) if share_bytes(image.file(), file) => Err(Failure::Refused(format!(
            "{} is the image itself, or has bytes of it: choose another input",
            input_name(path)
        ))),
        // Other problems of the image are reported when it is opened for writing.
        _ => Ok(()),
    }
}

/// Prints a note if an input holds other data in some encoding, which is imported as it is, rarely on purpose. A
/// pipe cannot be examined.
fn note_encoding(file: &File, path: &std::path::Path) {
    let mut head = [0; 512];
    let read = file.read_at(&mut head, 0).unwrap_or(0);
    if let Some((what, remedy)) = encoding(&head[..read]) {
        note(&format!(
            "{} is {what}, and is imported as it is: to import what it holds, {remedy}",
            input_name(path)
        ));
    }
}

async fn import(
    session: &Session,
    target: Target,
    file: File,
    length: Option<u64>,
    name: &str,
) -> Result<Imported, Failure> {
    let cluster = u64::from(session.store.cluster_size());
    let grain = Grain { block: u64::from(session.store.io_unit_size()), zeroes: ZERO_GRAIN.min(cluster) };
    let (blob, unfinished, beside) = match target {
        Target::Existing { asked, in_place } => {
            let blob = open_existing(session, &asked, length, name, in_place).await?;
            let beside = if in_place { None } else { Some(Rc::new(blob.replace().await?)) };
            (blob, None, beside)
        }
        Target::New { thin, size, naming } => {
            let (blob, unfinished) = create(session, length, name, thin, size, &naming).await?;
            (blob, Some(unfinished), None)
        }
    };
    let (id, new, in_place) = (blob.id(), unfinished.is_some(), beside.is_none());
    let may_grow = new && length.is_none() && blob.clusters() == 0;
    // A stream may become at most as large as the store, unless a size was given.
    let most = if may_grow { u64::from(session.info().await?.data_clusters) * cluster } else { blob.size() };
    let input = Input::read(file, length, grain, most).map_err(|error| Failure::Engine(error.to_string()))?;
    let in_flight = VecDeque::with_capacity(DEPTH);
    let mut copy =
        Copy { session, blob, beside, input, block: grain.block, new, may_grow, most, written: 0, in_flight };
    let mut copied = copy.run(name).await;
    copied = copy.end_beside(copied).await;
    let Copy { blob, written, .. } = copy;
    if let (Ok(_), Some(unfinished)) = (&copied, unfinished)
        && let Err(error) = unfinished.finish(&blob).await
    {
        copied = Err(error.into());
    }
    // If the work failed, its error is more useful than that of the close.
    let closed = blob.close().await;
    match copied {
        Ok(bytes) => {
            closed?;
            Ok(Imported { blob: session.live(id).await?, bytes, written })
        }
        Err(error) => {
            if !new && in_place {
                note(&format!("blob {id} holds part of {name} now: import it again"));
            } else if !new {
                note(&format!("blob {id} holds what it held"));
            } else if session.store.delete_blob(id).await.is_err() {
                note(&format!("blob {id} holds part of {name} and could not be removed"));
            }
            Err(error)
        }
    }
}

async fn open_existing(
    session: &Session,
    asked: &OsString,
    length: Option<u64>,
    name: &str,
    in_place: bool,
) -> Result<Blob, Failure> {
    let id = session.find(asked).await?;
    refuse_super_blob(session, id, "imported into").await?;
    let live = session.live(id).await?;
    if live.info.read_only {
        return Err(BlobError::ReadOnly { blob: id }.into());
    }
    if let Some(length) = length.filter(|length| *length > live.size()) {
        return Err(too_large(name, &count(length, "byte"), &live.label(), live.size()));
    }
    if in_place {
        refuse_unreadable(session, id).await?;
    }
    match in_place {
        false => check_space(session, &live, length).await?,
        true if length.is_none() => note(&format!(
            "how long {name} is will be known at its end: blob {} is written over as it comes",
            live.label()
        )),
        true => {}
    }
    Ok(session.store.open_blob(id).await?)
}

/// Prints what new contents beside the old will take; an error if that is more than is available.
async fn check_space(session: &Session, live: &Live, length: Option<u64>) -> Result<(), Failure> {
    let cluster = u64::from(session.store.cluster_size());
    let free = u64::from(session.info().await?.free_clusters) * cluster;
    let most = live.size().min(length.map_or(u64::MAX, |length| session.clusters(length) * cluster));
    let (needed, at_most) = if live.info.thin { (most, "at most ") } else { (live.size(), "") };
    let (label, needed_text, free_text) = (live.label(), text::size(needed), text::size(free));
    if !live.info.thin && needed > free {
        return Err(Failure::Refused(format!(
            "blob {label} keeps its contents until the new ones are complete, which takes {needed_text} beside \
             them, and {free_text} are free: --in-place writes over the old ones"
        )));
    }
    note(&format!(
        "blob {label} keeps its contents until the new ones are complete: {at_most}{needed_text} are taken beside \
         them meanwhile, {free_text} are free"
    ));
    Ok(())
}

fn too_large(name: &str, length: &str, blob: &str, size: u64) -> Failure {
    Failure::Refused(format!(
        "{name} has {length}, blob {blob} only {size}: make it larger with spindle blob resize"
    ))
}

async fn create(
    session: &Session,
    length: Option<u64>,
    name: &str,
    thin: bool,
    size: Option<u64>,
    naming: &Naming,
) -> Result<(Blob, Unfinished), Failure> {
    if let (Some(length), Some(size)) = (length, size)
        && length > size
    {
        let why = format!("{name} has {length} bytes, more than --size {size}: leave --size out");
        return Err(Failure::Refused(why));
    }
    let clusters = match (size, length) {
        (Some(size), _) => rounded(session, size),
        (None, length) => session.clusters(length.unwrap_or(0)),
    };
    let mut xattrs = naming.xattrs(session).await?;
    let unfinished = Unfinished::mark(session, &mut xattrs).await?;
    unfinished.remove_left(session).await?;
    let options = BlobOptions { clusters, thin, xattrs, ..BlobOptions::default() };
    let argument = if size.is_some() { "--size" } else { name };
    let made = session.store.create_blob(options).await;
    let id = made.map_err(|error| Failure::of_size(argument, error))?;
    Ok((session.store.open_blob(id).await?, unfinished))
}

/// The copying of an input into a blob.
struct Copy<'a> {
    session: &'a Session,
    blob: Blob,
    /// New contents beside the old ones, unless the blob is overwritten.
    beside: Option<Rc<Replacement>>,
    input: Input,
    /// Bytes of the smallest write.
    block: u64,
    /// True if unwritten parts of the blob already read zero.
    new: bool,
    /// True if the blob grows with its input.
    may_grow: bool,
    /// The most bytes that it may have.
    most: u64,
    written: u64,
    /// Writes under way, oldest first.
    in_flight: VecDeque<Writing>,
}

type Writing = LocalJoinHandle<Result<(), BlobError>>;

impl Copy<'_> {
    /// Copies everything, durably; returns the bytes of the input.
    async fn run(&mut self, name: &str) -> Result<u64, Failure> {
        let mut progress = Progress::new("importing", self.input.length().unwrap_or(0));
        let mut end = 0;
        while let Some(piece) = self.next().await? {
            let piece = piece.map_err(|error| Failure::Input { name: name.to_owned(), at: end, error })?;
            end = match &piece {
                Piece::Data { at, own, .. } => at + own,
                Piece::Zeroes { at, len } => at + len,
            };
            self.make_room(end, name).await?;
            if self.in_flight.len() == DEPTH
                && let Some(oldest) = self.in_flight.pop_front()
            {
                ended(oldest).await?;
            }
            let write = self.submit(piece);
            self.in_flight.extend(write);
            progress.at(end, self.input.length().unwrap_or(end));
        }
        while let Some(write) = self.in_flight.pop_front() {
            ended(write).await?;
        }
        self.session.stop.check()?;
        self.finish(end).await?;
        Ok(end)
    }

    /// Commits new contents beside the old ones if all went well, otherwise gives them up.
    async fn end_beside(&mut self, copied: Result<u64, Failure>) -> Result<u64, Failure> {
        let Some(beside) = self.beside.take() else { return copied };
        while let Some(write) = self.in_flight.pop_front() {
            // The first error is reported already.
            let _ = ended(write).await;
        }
        // A task that has ended holds no reference any more.
        let Some(beside) = Rc::into_inner(beside) else { return copied };
        match copied {
            Ok(bytes) => beside.commit().await.map(|()| bytes).map_err(Failure::from),
            Err(error) => {
                // A later check finds clusters that could not be given back.
                let _ = beside.abandon().await;
                Err(error)
            }
        }
    }

    /// The next piece; an error if the work must stop.
    async fn next(&mut self) -> Result<Option<std::io::Result<Piece>>, Failure> {
        self.session.stop.or(self.input.next()).await
    }

    /// Makes the blob large enough for `end` bytes, if it may grow.
    async fn make_room(&self, end: u64, name: &str) -> Result<(), Failure> {
        if end <= self.blob.size() {
            return Ok(());
        }
        if self.may_grow && end > self.most {
            return Err(Failure::Refused(format!(
                "{name} has more bytes than {} could hold ({}), and no end was seen: give --size if the blob is to \
                 be larger than its store",
                self.session.image(),
                text::size(self.most)
            )));
        }
        if !self.may_grow {
            let length = match self.input.length() {
                Some(length) => count(length, "byte"),
                // Not read to its end, which it may not have.
                None => format!("{} or more", count(end, "byte")),
            };
            return Err(too_large(name, &length, &self.blob.id().to_string(), self.blob.size()));
        }
        let needed = self.session.clusters(end);
        match self.blob.resize(needed + GROWTH).await {
            Err(BlobError::OutOfSpace { .. } | BlobError::OutOfMetadata { .. }) => {
                Ok(self.blob.resize(needed).await?)
            }
            other => Ok(other?),
        }
    }

    fn submit(&mut self, piece: Piece) -> Option<Writing> {
        let blob = self.blob.clone();
        match piece {
            Piece::Data { at, bytes, own } => {
                self.written += own;
                if let Some(beside) = self.beside.clone() {
                    return Some(spawn_local(async move { beside.write(at, bytes).await }));
                }
                Some(spawn_local(async move { blob.write(at, bytes).await.0 }))
            }
            // New contents read zero where nothing is written.
            Piece::Zeroes { .. } if self.new || self.beside.is_some() => None,
            Piece::Zeroes { at, len } => {
                let (len, stop) = (len.next_multiple_of(self.block), self.session.stop.clone());
                // A stop is an error before the end is reached.
                Some(spawn_local(async move { stop.or(blob.write_zeroes(at, len)).await.unwrap_or(Ok(())) }))
            }
        }
    }

    /// Makes the rest of the blob zeroes, and everything durable.
    async fn finish(&self, end: u64) -> Result<(), Failure> {
        let padded = end.next_multiple_of(self.block);
        if self.beside.is_some() {
            return Ok(());
        }
        if self.may_grow {
            self.blob.resize(self.session.clusters(end)).await?;
        } else if !self.new && padded < self.blob.size() {
            let padding = self.blob.write_zeroes(padded, self.blob.size() - padded);
            self.session.stop.or(padding).await??;
        }
        Ok(self.blob.flush().await?)
    }
}

async fn ended(write: Writing) -> Result<(), Failure> {
    Ok(write.await.map_err(|error| Failure::Engine(error.to_string()))??)
}

fn print(done: &Imported, json: bool, out: &mut Output) -> Result<(), Failure> {
    let Imported { blob, bytes, written } = done;
    let (zeroes, padding) = (bytes - written, blob.size() - bytes);
    if json {
        out.json(&Report { blob: blob.json(), bytes: *bytes, written: *written, zeroes, padding })?;
    } else {
        let (bytes, label) = (count(*bytes, "byte"), blob.label());
        let (written, zeroes) = (text::size(*written), text::size(zeroes));
        writeln!(out, "imported {bytes} into {label}: {written} of data, {zeroes} of zeroes")?;
        if padding > 0 {
            writeln!(
                out,
                "{} of zeroes follow: the blob has {} bytes",
                text::count(padding, "byte"),
                blob.size()
            )?;
        }
    }
    Ok(())
}
