//! Performs operations on data on the store and records them in the model.

use std::sync::Arc;

use spindle_blob::{Blob, BlobError};
use spindle_mem::{Buffers, IoBuf};

use crate::content;
use crate::context::Context;
use crate::op::{Op, Outcome, Tag};
use crate::seen::value_of;
use crate::units::{Time, Units, Value};

/// Performs an operation on the data of an open blob.
pub async fn perform(run: &Arc<Context>, blob: &Blob, op: Op) {
    let begun = run.begin(&op);
    let unit = u64::from(run.profile.block);
    let result = match op {
        Op::Write { unit: at, count, value, .. } => write(run, blob, at, count, value).await,
        Op::Zeroes { unit: at, count, .. } => blob.write_zeroes(at * unit, count * unit).await,
        Op::Unmap { unit: at, count, .. } => blob.unmap(at * unit, count * unit).await,
        Op::Flush { .. } => blob.flush().await,
        Op::Read { tag, unit: at, count } => read(run, blob, (tag, begun), at, count).await,
        _ => unreachable!("the caller asks for data operations only"),
    };
    if run.ended(begun, &op, result).is_some() {
        run.end(begun, Outcome::Done(None));
    }
}

async fn write(run: &Context, blob: &Blob, at: u64, count: u64, value: Value) -> Result<(), BlobError> {
    let unit = run.profile.block as usize;
    let mut bytes = IoBuf::zeroed(count as usize * unit);
    content::fill(&mut bytes, unit, value);
    // Sometimes from two pieces of memory.
    let buffers = if count > 1 && value.is_multiple_of(3) {
        let rest = bytes.split_off(unit);
        Buffers::from(vec![bytes, rest])
    } else {
        Buffers::from(bytes)
    };
    blob.write(at * unit as u64, buffers).await.0
}

async fn read(
    run: &Context,
    blob: &Blob,
    (tag, begun): (Tag, Time),
    at: u64,
    count: u64,
) -> Result<(), BlobError> {
    let unit = run.profile.block as usize;
    let (result, buffers) = blob.read(at * unit as u64, IoBuf::zeroed(count as usize * unit)).await;
    result?;
    let bytes = buffers.to_vec();
    let wrong = run.model(|model| {
        // The blob was reshaped meanwhile, which may have changed the data read.
        if !model.is_same_since(tag, begun) {
            return None;
        }
        let known: Vec<&Units> =
            model.worlds.iter().filter_map(|world| world.blobs.get(&tag)).map(|blob| &blob.units).collect();
        let first = known.first()?;
        let held = bytes.chunks_exact(unit).map(value_of).zip(at..);
        let mut bad = held.filter(|(value, at)| !known.iter().any(|units| units.shows(*at, *value, begun)));
        let (value, at) = bad.next()?;
        let visible: Vec<String> = first.visible(at, begun).into_iter().map(content::name).collect();
        let (holds, may) = (content::name(value), visible.join(" or "));
        Some(format!("a read of unit {at} of blob {tag} returned {holds}, not {may}"))
    });
    wrong.into_iter().for_each(|wrong| run.wrong(wrong));
    Ok(())
}
