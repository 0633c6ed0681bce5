//! The store that a command works on: the arguments that name it, and how it is loaded.

use super::external::{ExternalArgument, Externals};
use super::image::ImageFile;
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;
use clap::builder::{OsStringValueParser, TypedValueParser};
use spindle_format::{LoadOptions, Loader, Store};
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
    /// What was typed: the image, and the external snapshots.
    pub(super) fn parts(&self) -> (PathBuf, Vec<ExternalArgument>) {
        (self.image.clone(), self.externals.clone())
    }

    /// Opens image and external snapshots for reading only.
    pub(super) fn open(&self) -> Result<(ImageFile, Externals), Failure> {
        Ok((ImageFile::open(&self.image)?, Externals::open(&self.externals)?))
    }
}

/// Loads the store of an image, as a writing load would leave it. The image is not changed.
pub(super) fn load(image: &ImageFile) -> Result<Store, Failure> {
    let options = LoadOptions { max_read: READ_SIZE, ..LoadOptions::default() };
    let mut loader = Loader::new(image.size(), options);
    let mut progress = Progress::new("reading metadata", 0);
    let mut in_flight = VecDeque::with_capacity(READS_IN_FLIGHT);
    let mut bytes = Vec::new();
    loop {
        while in_flight.len() < READS_IN_FLIGHT
            && let Some(range) = loader.next_read()
        {
            image.read_ahead(range);
            in_flight.push_back(range);
        }
        let Some(range) = in_flight.pop_front() else { break };
        bytes.resize(range.len, 0);
        match image.read(range.offset, &mut bytes) {
            Ok(()) => loader.supply(range, &bytes),
            // Whatever lies there counts as damaged and is reported as such, with its place.
            Err(_) => loader.read_failed(range),
        }
        let (done, total) = loader.progress();
        progress.at(done, total);
    }
    loader.finish().map_err(|error| Failure::Load { path: image.path().to_owned(), error })
}
