//! The store that a command works on: the arguments that name it, and how it is loaded.

use super::external::{ExternalArgument, Externals};
use super::image::ImageFile;
use super::served::note_writer;
use super::signature;
use crate::cli::failure::{Failure, shown};
use crate::cli::output::note;
use crate::cli::progress::Progress;
use clap::builder::{OsStringValueParser, TypedValueParser};
use spindle_format::error::{FormatError, Place};
use spindle_format::{BlobId, LoadError, LoadOptions, Loader, Store};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Bytes of one read, and how many reads are in flight.
const READ_SIZE: usize = 1 << 20;
const READS_IN_FLIGHT: usize = 16;

/// The arguments that name a store.
#[derive(clap::Args)]
pub(super) struct Source {
    /// Image file or block device that holds the store
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Read the external snapshot of this UUID from this file or device (may be repeated)
    #[arg(
        long = "esnap",
        value_name = "UUID=FILE",
        value_parser = OsStringValueParser::new().try_map(ExternalArgument::parse)
    )]
    externals: Vec<ExternalArgument>,
}

impl Source {
    /// The arguments: the image, and the external snapshots.
    pub(super) fn parts(&self) -> (PathBuf, Vec<ExternalArgument>) {
        (self.image.clone(), self.externals.clone())
    }

    /// Opens image and external snapshots for reading only. Prints a note if a program writes to the image.
    pub(super) fn open(&self) -> Result<(ImageFile, Externals), Failure> {
        let image = ImageFile::open(&self.image)?;
        note_writer(&image);
        Ok((image, Externals::open(&self.externals)?))
    }
}

/// Loads the store of an image, as a writing load would leave it. The image is not changed. Of a truncated
/// one it loads what is there, and prints a note.
pub(super) fn load(image: &ImageFile) -> Result<Store, Failure> {
    match load_as(image, image.size()) {
        Err(error) => match error.cut_short(image.size()) {
            Some(whole) => {
                note(&format!("{}; shown is what is there", short_text(image, whole)));
                load_as(image, whole).map_err(|error| not_loaded(image, error))
            }
            None => Err(not_loaded(image, error)),
        },
        Ok(store) => Ok(store),
    }
}

/// Loads the store of an image that is about to be written: a truncated one is refused.
pub(super) fn load_whole(image: &ImageFile) -> Result<Store, Failure> {
    load_as(image, image.size()).map_err(|error| not_loaded(image, error))
}

/// Why an image holds no store that can be loaded, with its known contents.
pub(super) fn not_loaded(image: &ImageFile, error: LoadError) -> Failure {
    let path = image.path().to_owned();
    if let Some(whole) = error.cut_short(image.size()) {
        return Failure::Refused(short_text(image, whole));
    }
    match signature::instead(image) {
        Some(found) if is_no_store(&error) => Failure::NoStore { path, found },
        _ => Failure::Load { path, error },
    }
}

/// True if the image begins with something other than a super block.
fn is_no_store(error: &LoadError) -> bool {
    matches!(error, LoadError::Format(FormatError { place: Place::SuperBlock, .. }))
}

/// An error if bytes of a blob, from `offset` of the image on, lie after the end of a truncated image.
pub(super) fn refuse_missing(
    image: &ImageFile,
    store: &Store,
    blob: BlobId,
    (offset, len): (u64, u64),
) -> Result<(), Failure> {
    if offset.saturating_add(len) <= image.size() {
        return Ok(());
    }
    let (path, whole) = (shown(image.path()), store.geometry.size());
    Err(Failure::Refused(format!(
        "blob {blob} is not complete: its data at byte {offset} lies behind the end of {path}; export it from a copy as \
         long as the store (truncate -s {whole} COPY), in which what is missing reads zero"
    )))
}

fn short_text(image: &ImageFile, whole: u64) -> String {
    format!(
        "{} is cut short: it has {} bytes of the {whole} of its store; truncate a copy to {whole} bytes to read it \
         (truncate -s {whole} COPY), what is missing reads zero then",
        shown(image.path()),
        image.size()
    )
}

/// Loads from an image as if it had `bytes` bytes.
fn load_as(image: &ImageFile, bytes: u64) -> Result<Store, LoadError> {
    let options = LoadOptions { max_read: READ_SIZE, ..LoadOptions::default() };
    let mut loader = Loader::new(bytes, options);
    let mut progress = Progress::new("reading metadata", 0);
    let mut in_flight = VecDeque::with_capacity(READS_IN_FLIGHT);
    let mut buffer = Vec::new();
    loop {
        while in_flight.len() < READS_IN_FLIGHT
            && let Some(range) = loader.next_read()
        {
            image.read_ahead(range);
            in_flight.push_back(range);
        }
        let Some(range) = in_flight.pop_front() else { break };
        buffer.resize(range.len, 0);
        match image.read(range.offset, &mut buffer) {
            Ok(()) => loader.supply(range, &buffer),
            // Structures there count as damaged and are reported as such, with their places.
            Err(_) => loader.read_failed(range),
        }
        let (done, total) = loader.progress();
        progress.at(done, total);
    }
    loader.finish()
}
