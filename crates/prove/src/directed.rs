//! Planned workloads for situations that a random workload would take too long to reach.

use std::sync::Arc;

use crate::context::Context;
use crate::data;
use crate::metadata;
use crate::op::{Op, Tag, Xattrs};
use crate::workload::{below, rest};

/// Deletes blobs while another needs its first copy of an extent page: the root page just freed is the next
/// one to be taken.
pub async fn come_and_go(run: Arc<Context>, steps: u32) {
    for _ in 0..steps / 3 {
        let stays = create(&run, 3).await;
        write(&run, stays, 0).await;
        let goes = create(&run, 1).await;
        if below(2) == 0 {
            write(&run, goes, 0).await;
        }
        let beside = run.clone();
        let writing = spindle_reactor::spawn_local(async move {
            for _ in 0..below(4) {
                rest().await;
            }
            write(&beside, stays, 1).await;
        });
        metadata::perform(&run, Op::Delete { tag: goes }).await;
        if let Err(error) = writing.await {
            run.wrong(format!("a task of the workload ended: {error}"));
        }
        if run.is_stopped() {
            return;
        }
        if below(4) > 0 {
            metadata::perform(&run, Op::Delete { tag: stays }).await;
        }
    }
}

async fn create(run: &Arc<Context>, clusters: u64) -> Tag {
    let tag = run.model(|model| model.next.0);
    let xattrs = Xattrs::new();
    let op = Op::Create { tag, clusters, thin: true, table: true, waived: false, xattrs };
    metadata::perform(run, op).await;
    tag
}

/// Writes a cluster of a blob.
async fn write(run: &Arc<Context>, tag: Tag, cluster: u64) {
    let Some(blob) = run.handle(tag) else { return };
    let count = run.profile.per_cluster();
    let op = Op::Write { tag, unit: cluster * count, count, value: run.model(|model| model.next.1) };
    data::perform(run, &blob, op).await;
}
