//! `spindle blob export`: the contents of a blob as a file.
//!
//! Streams: memory is one buffer, independent of the blob's size, while reads far ahead are in flight.

use super::external::Externals;
use super::image::ImageFile;
use super::output_file::OutputFile;
use super::select::find;
use super::source::{Source, load, refuse_missing};
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;
use crate::cli::text::external_id;
use spindle_format::extents::{Extent, extents};
use spindle_format::resolve;
use spindle_format::{Blob, ByteRange, Geometry, Store};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Bytes of one read, and how many reads are in flight.
const READ_SIZE: u64 = 1 << 20;
const READS_IN_FLIGHT: usize = 16;

/// Arguments of `export`.
#[derive(clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    source: Source,
    /// The blob: its id (decimal, or hexadecimal with 0x) or its name
    #[arg(value_name = "BLOB")]
    blob: OsString,
    /// Where to write it; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
}

impl Export {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (image, externals) = self.source.open()?;
        let store = load(&image)?;
        let blob = find(&store, image.path(), &self.blob)?;
        let size = size_of(&store, blob)?;
        let plan = plan(&store, blob, &image, &externals)?;
        let mut output = if self.file == Path::new("-") {
            OutputFile::stdout()?
        } else {
            let inputs: Vec<&ImageFile> = externals.files().chain([&image]).collect();
            OutputFile::create(&self.file, size, self.force, &inputs)?
        };
        copy(Pieces::new(plan), size, &mut output)?;
        output.finish()
    }
}

/// Returns the size of a blob in bytes; an error if no file can be that large.
fn size_of(store: &Store, blob: &Blob) -> Result<u64, Failure> {
    let clusters = blob.metadata.map.num_clusters();
    let size = clusters.checked_mul(u64::from(store.geometry.cluster_size()));
    let size = size.filter(|size| i64::try_from(*size).is_ok());
    size.ok_or(Failure::BlobTooLarge { blob: blob.id, clusters })
}

/// A part of a blob in bytes: its source, `None` for zeroes.
struct Part<'a> {
    source: Option<(&'a ImageFile, u64)>,
    len: u64,
}

/// The blob as parts, in order and without holes.
fn plan<'a>(
    store: &Store,
    blob: &Blob,
    image: &'a ImageFile,
    externals: &'a Externals,
) -> Result<Vec<Part<'a>>, Failure> {
    let unresolved = |error| Failure::Resolve { path: image.path().to_owned(), error };
    let mut parts = Vec::new();
    for extent in extents(store, blob.id) {
        let (at, len) = bytes_of(&store.geometry, &extent);
        match extent.source.map_err(unresolved)? {
            resolve::Source::Zeroes => parts.push(Part { source: None, len }),
            resolve::Source::Cluster { cluster, .. } => {
                let offset = store.geometry.cluster_offset(cluster);
                refuse_missing(image, store, blob.id, (offset, len))?;
                parts.push(Part { source: Some((image, offset)), len });
            }
            resolve::Source::External { id } => {
                let missing = || Failure::MissingExternal { blob: blob.id, id: external_id(id) };
                let file = externals.get(id).ok_or_else(missing)?;
                parts.extend(external_parts(file, (at, len)));
            }
        }
    }
    Ok(parts)
}

/// An extent's first byte in its blob, and its length in bytes.
fn bytes_of(geometry: &Geometry, extent: &Extent) -> (u64, u64) {
    let cluster_size = u64::from(geometry.cluster_size());
    (extent.first * cluster_size, extent.clusters * cluster_size)
}

/// An external snapshot may end before its clone: zeroes from there on.
fn external_parts(file: &ImageFile, (at, len): (u64, u64)) -> impl Iterator<Item = Part<'_>> {
    let there = file.size().saturating_sub(at).min(len);
    let data = Part { source: Some((file, at)), len: there };
    [data, Part { source: None, len: len - there }].into_iter().filter(|part| part.len > 0)
}

/// Cuts parts into reads. Zeroes stay whole, and so do holes of the file: they are not read, as a store may claim
/// far more than its file holds.
struct Pieces<'a> {
    parts: std::vec::IntoIter<Part<'a>>,
    rest: Option<Part<'a>>,
}

impl<'a> Pieces<'a> {
    fn new(parts: Vec<Part<'a>>) -> Pieces<'a> {
        Pieces { parts: parts.into_iter(), rest: None }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let part = self.rest.take().or_else(|| self.parts.next())?;
        let Some((file, offset)) = part.source else { return Some(part) };
        let hole = file.hole_at(offset).min(part.len);
        let len = if hole > 0 { hole } else { part.len.min(READ_SIZE) };
        if len < part.len {
            self.rest = Some(Part { source: Some((file, offset + len)), len: part.len - len });
        }
        Some(Part { source: part.source.filter(|_| hole == 0), len })
    }
}

/// Reads piece after piece, while the kernel is already at work on those that follow.
fn copy(mut pieces: Pieces, size: u64, output: &mut OutputFile) -> Result<(), Failure> {
    let mut progress = Progress::new("exporting", size);
    let mut in_flight = VecDeque::with_capacity(READS_IN_FLIGHT);
    let mut buffer = vec![0; READ_SIZE as usize];
    let mut at = 0;
    loop {
        while in_flight.len() < READS_IN_FLIGHT
            && let Some(piece) = pieces.next()
        {
            if let Some((file, offset)) = piece.source {
                file.read_ahead(ByteRange { offset, len: piece.len as usize });
            }
            in_flight.push_back(piece);
        }
        let Some(piece) = in_flight.pop_front() else { return Ok(()) };
        match piece.source {
            None => output.zeroes(piece.len)?,
            Some((file, offset)) => {
                let bytes = &mut buffer[..piece.len as usize];
                file.read(offset, bytes)?;
                output.data(at, bytes)?;
            }
        }
        at += piece.len;
        progress.at(at, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_of_an_image_are_not_read_however_much_a_store_claims() {
        const TIB: u64 = 1 << 40;
        let sparse = tempfile::NamedTempFile::new().unwrap();
        sparse.as_file().set_len(4 * TIB).unwrap();
        [TIB, 3 * TIB].iter().for_each(|&at| sparse.as_file().write_all_at(&[7; 4096], at).unwrap());
        let image = ImageFile::open(sparse.path()).unwrap();
        let part = |offset, len| Part { source: Some((&image, offset)), len };
        let (mut read, mut at) = (0, 0);
        for piece in Pieces::new(vec![part(0, 2 * TIB), part(2 * TIB, 2 * TIB)]) {
            if let Some((_, offset)) = piece.source {
                assert_eq!(offset, at);
                read += piece.len;
            }
            at += piece.len;
        }
        assert_eq!(at, 4 * TIB);
        assert!((2 * 4096..=2 * READ_SIZE).contains(&read), "{read} bytes read");
    }
}
