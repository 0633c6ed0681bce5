//! `spindle blob grow`: takes over space that a file or device has gained.

use super::foreground;
use super::image::ImageFile;
use super::info::print_report;
use super::served::open_for_writing;
use super::session::{Session, change};
use super::source::{Source, load_whole};
use crate::cli::failure::{Failure, shown};
use crate::cli::shell;
use crate::cli::size;
use crate::cli::text;
use spindle_format::repair::RepairReason;
use std::path::Path;

/// Arguments of `grow`.
#[derive(clap::Args)]
pub(crate) struct Grow {
    #[command(flatten)]
    source: Source,
    /// Extend the image file to this size first. Without it, the file or device must have grown already
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    size: Option<u64>,
    /// Print the store as JSON, as in info
    #[arg(long)]
    json: bool,
}

impl Grow {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (image, _) = self.source.parts();
        if let Some(size) = self.size {
            extend(&image, size)?;
        }
        change(&self.source, async |session: &Session| Ok(session.store.grow().await?))?;
        print_report("grew", &image, self.json)
    }
}

/// Enlarges the image file of a store that can use the space, under the lock that excludes other writers.
fn extend(path: &Path, size: u64) -> Result<(), Failure> {
    let image = ImageFile::open(path)?;
    if !image.is_file() {
        let why = "--size is for image files: make the device larger itself, then leave --size out";
        return Err(Failure::Usage(why.into()));
    }
    if size < image.size() {
        let (old, new) = (text::size(image.size()), text::size(size));
        return Err(Failure::Refused(format!(
            "{} has {old}, more than {new}: no store shrinks",
            shown(path)
        )));
    }
    let longer = size > image.size();
    let path = path.to_owned();
    foreground::run(async move |_| {
        let _locked = open_for_writing(&path).await?;
        // Fails if the file holds no store, or not all of one: what is missing would read zero in a longer file,
        // and no check would find it.
        let store = load_whole(&ImageFile::open(&path)?)?;
        if longer && store.repairs.iter().any(|repair| repair.reason == RepairReason::TornSuperBlock) {
            // Its values are told by the size of the file.
            let why = "its super block is torn, and could not be restored in a longer file";
            let mend = format!("spindle blob check --repair {}", shell::typed(&path));
            return Err(Failure::Refused(format!("{}: {why}: run {mend} first", shown(&path))));
        }
        spindle_format::grow::plan(&store.super_block, &store.geometry, size)
            .map_err(|error| Failure::Refused(format!("{}: {error}", shown(&path))))?;
        let file = std::fs::File::options().write(true).open(&path);
        let made = file.and_then(|file| file.set_len(size));
        made.map_err(|error| Failure::file(&path, "made larger", error))
    })
}
