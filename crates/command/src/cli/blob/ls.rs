//! `spindle blob ls`: the blobs of a store.

use super::describe::{BlobJson, flags_text, name_text, parent_text, size_of};
use super::source::{Source, load};
use super::unfinished;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, note};
use crate::cli::table::{Align, Table};
use crate::cli::text::{count, shortened, size};
use spindle_format::{Blob, Store};
use std::io::Write;

/// Clones listed by id in one line; more are counted.
const CLONES_LISTED: usize = 4;

/// Columns of a name in a line; JSON has all of it.
const WIDEST_NAME: usize = 48;

/// Arguments of `ls`.
#[derive(clap::Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    source: Source,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl Ls {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (image, _) = self.source.open()?;
        let store = load(&image)?;
        let mut out = Output::stdout();
        if self.json {
            let blobs: Vec<BlobJson> = store.blobs.values().map(|blob| BlobJson::of(&store, blob)).collect();
            out.json(&blobs)?;
        } else {
            print(&store, &mut out)?;
        }
        out.finish()?;
        for &id in store.blobs.keys() {
            if let Some(name) = store.importing(id) {
                note(&unfinished::explained(image.path(), id, name));
            }
        }
        if !store.damaged.is_empty() {
            let damaged = count(store.damaged.len() as u64, "damaged blob");
            note(&format!("{damaged} not listed: spindle blob info says what is wrong"));
        }
        Ok(())
    }
}

fn print(store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("ALLOCATED", Align::Right),
        ("FLAGS", Align::Left),
        ("PARENT", Align::Left),
        ("CLONES", Align::Left),
    ]);
    let cluster_size = u64::from(store.geometry.cluster_size());
    for blob in store.blobs.values() {
        table.row([
            blob.id.to_string(),
            shortened(name_text(blob), WIDEST_NAME),
            size(size_of(store, blob)),
            size(blob.metadata.map.allocated().saturating_mul(cluster_size)),
            flags_text(store, blob),
            parent_text(store, blob),
            clones_text(blob),
        ]);
    }
    Ok(table.print(out)?)
}

fn clones_text(blob: &Blob) -> String {
    match blob.clones.as_slice() {
        [] => "-".into(),
        many if many.len() > CLONES_LISTED => many.len().to_string() + " clones",
        few => few.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(","),
    }
}
