//! Loads images that SPDK wrote from a folder of compressed ones.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use spindle_prove::damage::source::Fixture;

/// Reads every `.img.zst` below a folder, ordered by name. Images in a folder `steps` are one store, oldest
/// first.
///
/// # Errors
/// An image cannot be read.
pub fn load(folder: &Path) -> io::Result<Vec<Fixture>> {
    let mut paths = Vec::new();
    find(folder, &mut paths)?;
    paths.sort();
    let mut fixtures: Vec<Fixture> = Vec::new();
    let mut ages = Vec::new();
    for path in paths {
        let mut fixture = read(&path)?;
        if path.parent().is_some_and(|folder| folder.ends_with("steps")) {
            fixture.earlier = ages.clone();
            ages.push(fixture.image.clone());
        }
        fixtures.push(fixture);
    }
    Ok(fixtures)
}

fn find(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => find(&path, paths)?,
            false if path.to_string_lossy().ends_with(".img.zst") => paths.push(path),
            false => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Fixture> {
    let bad = |error: ruzstd::decoding::errors::FrameDecoderError| io::Error::other(error.to_string());
    let mut decoder =
        ruzstd::decoding::StreamingDecoder::new(BufReader::new(File::open(path)?)).map_err(bad)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Fixture::read(name, &mut decoder)
}
