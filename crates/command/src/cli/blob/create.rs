//! `spindle blob create`: a new blob.

use super::describe::Live;
use super::external::SnapshotId;
use super::lvol;
use super::naming::Naming;
use super::session::{Session, change};
use super::source::Source;
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::cli::size;
use crate::cli::text;
use spindle_blob::BlobOptions;

/// Arguments of `create`.
#[derive(clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    source: Source,
    /// Its size, rounded up to whole clusters: bytes, or a number of K, M, G, T or P
    #[arg(long, value_name = "SIZE", value_parser = size::parse, required_unless_present = "clusters")]
    size: Option<u64>,
    /// Its size in clusters
    #[arg(long, value_name = "N", conflicts_with = "size")]
    clusters: Option<u64>,
    /// Allocate clusters when they are first written
    #[arg(long)]
    thin: bool,
    #[command(flatten)]
    naming: Naming,
    /// A thin clone of the external snapshot with this id: a UUID, or 0x and hexadecimal
    #[arg(long, value_name = "ID")]
    external_snapshot: Option<SnapshotId>,
    /// Print the blob as JSON, as in ls
    #[arg(long)]
    json: bool,
}

impl Create {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Create { source, size, clusters, thin, naming, external_snapshot, json } = self;
        let blob = change(&source, async move |session: &Session| {
            let clusters = match (clusters, size) {
                (Some(clusters), _) => clusters,
                (None, size) => rounded(session, size.unwrap_or(0)),
            };
            let xattrs = naming.xattrs(session).await?;
            let external_snapshot = match external_snapshot {
                Some(id) => Some(lvol::external_id(session, id.0).await?),
                None => None,
            };
            let options = BlobOptions { clusters, thin, xattrs, external_snapshot, ..BlobOptions::default() };
            let argument = if size.is_some() { "--size" } else { "--clusters" };
            let made = session.store.create_blob(options).await;
            session.live(made.map_err(|error| Failure::of_size(argument, error))?).await
        })?;
        print_new(&blob, json)
    }
}

/// Clusters for `bytes` bytes; prints a note if that is rounded up.
pub(super) fn rounded(session: &Session, bytes: u64) -> u64 {
    let clusters = session.clusters(bytes);
    let cluster = u64::from(session.store.cluster_size());
    if clusters * cluster != bytes {
        note(&format!(
            "{} is rounded up to {} of {}: {}",
            text::size(bytes),
            text::count(clusters, "cluster"),
            text::size(cluster),
            text::size(clusters * cluster)
        ));
    }
    clusters
}

/// Prints a new blob: its id, which scripts read, or everything in JSON.
pub(super) fn print_new(blob: &Live, json: bool) -> Result<(), Failure> {
    blob.print("made", json, |blob| blob.id().to_string())
}
