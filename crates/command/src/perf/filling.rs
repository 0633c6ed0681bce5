//! Writes that need clusters: a thin blob filled in order, one new cluster for each write, and a cluster
//! copied from a snapshot for each write.

use spindle::{Blob, BlobOptions};

use super::blob::Bench;
use super::figure::Figure;
use super::flight::{buffers, fly};
use super::pairs::{Pairs, Timed, timed};
use super::{Failed, Figures, aims};

/// Bytes of a write that fills in order.
const STEP: u64 = 64 << 10;
/// Bytes of a write that needs a cluster.
const SMALL: u64 = 4096;

/// All three, at depths 1 and 32 where that matters.
pub(super) async fn filling(bench: &Bench) -> Figures {
    let mut figures = vec![in_order(bench).await?];
    for depth in [1, 32] {
        figures.push(copied(bench, depth).await?);
    }
    for depth in [1, 32] {
        figures.push(new_clusters(bench, depth).await?);
    }
    Ok(figures)
}

/// A thin blob filled from its beginning to its end, beside a thick one.
async fn in_order(bench: &Bench) -> Result<Figure, Failed> {
    let what = "thin, filled in order: 64 KiB write, depth 32";
    bench.effort.progress.at(what);
    let clusters = bench.clusters() / 2;
    let filled = async |options: BlobOptions| {
        let blob = bench.blob(options).await?;
        let took = fill(&blob, STEP, STEP, 32).await;
        remove(bench, blob).await?;
        took
    };
    // Both are new: their clusters were not written to since they were given back, so that the memory disk or
    // the file system below has to find room for both.
    let pairs = Pairs::start(what, "thick, filled in order: 64 KiB write, depth 32");
    let pairs = pairs
        .measure(
            bench.effort,
            async || filled(BlobOptions::thin(clusters)).await,
            async || filled(BlobOptions::thick(clusters)).await,
        )
        .await?;
    Ok(Figure { bytes_per_op: Some(STEP), ..pairs.figure() }.at_least(aims::FILL_SPEED))
}

/// The beginning of every cluster of a thin blob is written, beside the bare disk that zeroes clusters.
async fn new_clusters(bench: &Bench, depth: usize) -> Result<Figure, Failed> {
    let what = format!("thin, one new cluster per write: 4 KiB write, depth {depth}");
    bench.effort.progress.at(&what);
    let clusters = bench.clusters() / 2;
    let size = u64::from(bench.store.cluster_size());
    let pairs = Pairs::start(what, format!("bare disk: cluster zeroed, depth {depth}"));
    let pairs = pairs
        .measure(
            bench.effort,
            async || {
                // Long enough that the first write, which begins the blob's map, does not dominate.
                let thin = bench.blob(BlobOptions::thin(8 * clusters)).await?;
                let took = fill(&thin, size, SMALL, depth).await;
                remove(bench, thin).await?;
                took
            },
            async || {
                // As after a deletion of a blob: the clusters hold data.
                bench.fill_bare().await?;
                let mut at = bench.bare;
                let zeroed = async {
                    fly(clusters, &mut buffers(depth, 0), |buffers| {
                        at += size;
                        let zeroes = bench.channel.write_zeroes(at - size, size);
                        async { (zeroes.await, buffers) }
                    })
                    .await?;
                    Ok(bench.channel.flush().await?)
                };
                timed(clusters, zeroed).await
            },
        )
        .await?;
    bench.fill_bare().await?;
    Ok(pairs.figure().at_least(aims::NEW_CLUSTER_SPEED))
}

/// The beginning of every cluster of a clone is written, beside the bare disk that copies clusters.
async fn copied(bench: &Bench, depth: usize) -> Result<Figure, Failed> {
    let what = format!("clone, one copied cluster per write: 4 KiB write, depth {depth}");
    bench.effort.progress.at(&what);
    let original = bench.filled(BlobOptions::thin(bench.clusters())).await?;
    let snapshot = bench.store.snapshot(original.id(), Vec::new()).await?;
    let (clusters, size) = (bench.clusters() / 2, u64::from(bench.store.cluster_size()));
    let pairs = Pairs::start(what, format!("bare disk: cluster read and written, depth {depth}"));
    let pairs = pairs
        .measure(
            bench.effort,
            async || {
                let id = bench.store.clone_blob(snapshot, Vec::new()).await?;
                let clone = bench.store.open_blob(id).await?;
                let took = write_each(&clone, size, SMALL, depth, clusters).await;
                remove(bench, clone).await?;
                took
            },
            async || {
                let mut at = bench.bare;
                let copied = async {
                    fly(clusters, &mut buffers(depth, size as usize), |buffers| {
                        at += size;
                        let from = at - size;
                        async move {
                            let (result, buffers) = bench.channel.read(from, buffers).await;
                            match result {
                                Ok(()) => bench.channel.write(from, buffers).await,
                                Err(error) => (Err(error), buffers),
                            }
                        }
                    })
                    .await?;
                    Ok(bench.channel.flush().await?)
                };
                timed(clusters, copied).await
            },
        )
        .await?;
    remove(bench, original).await?;
    bench.store.delete_blob(snapshot).await?;
    Ok(pairs.figure())
}

/// Writes `bytes` bytes at every `step` of a blob, and flushes.
async fn fill(blob: &Blob, step: u64, bytes: u64, depth: usize) -> Timed {
    write_each(blob, step, bytes, depth, blob.size() / step).await
}

async fn write_each(blob: &Blob, step: u64, bytes: u64, depth: usize, writes: u64) -> Timed {
    let mut idle = buffers(depth, bytes as usize);
    let mut at = 0;
    let written = async {
        fly(writes, &mut idle, |buffers| {
            at += step;
            blob.write(at - step, buffers)
        })
        .await?;
        Ok(blob.flush().await?)
    };
    timed(writes, written).await
}

async fn remove(bench: &Bench, blob: Blob) -> Result<(), Failed> {
    let id = blob.id();
    blob.close().await?;
    Ok(bench.store.delete_blob(id).await?)
}
