//! Copies of what volumes have themselves: started by one method, looked after by another.
//!
//! A copy that ended is kept until its end was asked for; of those that are never asked for the oldest go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spindle_lvol::{LvolError, ShallowCopy};
use spindle_rpc::{BadParams, Errno, Method, RpcError, States, Table};

use super::Added;
use super::lvols::lvol;
use super::lvstores::under_way;
use super::parents::late;
use crate::control::Control;

/// Copies that are kept although they have ended.
const MOST_ENDED: usize = 1024;

/// Copies by the ids that clients were given.
#[derive(Default)]
pub(crate) struct Copies {
    last: Cell<u32>,
    known: RefCell<BTreeMap<u32, ShallowCopy>>,
}

impl Copies {
    /// The next id; it is used up even if no copy comes of it.
    fn next(&self) -> u32 {
        self.last.set(self.last.get().wrapping_add(1));
        self.last.get()
    }

    fn keep(&self, id: u32, copy: ShallowCopy) {
        let mut known = self.known.borrow_mut();
        known.insert(id, copy);
        let ended: Vec<u32> =
            known.iter().filter(|(_, copy)| copy.ended().is_some()).map(|(id, _)| *id).collect();
        for id in ended.iter().take(ended.len().saturating_sub(MOST_ENDED)) {
            known.remove(id);
        }
    }
}

pub(super) fn add(table: &mut Table<Control>) -> Added {
    let (runtime, decode) = (States::RUNTIME, BadParams::DECODE_FAILED);
    table.add(Method::with("bdev_lvol_start_shallow_copy", runtime, decode, start))?;
    table.add(Method::with("bdev_lvol_check_shallow_copy", runtime, decode, check))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    src_lvol_name: String,
    dst_bdev_name: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Started {
    operation_id: u32,
}

async fn start(control: Control, params: Start) -> Result<Started, RpcError> {
    let source = lvol(&control, &params.src_lvol_name)?;
    let operation_id = control.copies().next();
    let target = control.registry().get(&params.dst_bdev_name).map_err(late)?;
    let copy = source.shallow_copy(&target).await.map_err(|error| under_way(&error))?;
    control.copies().keep(operation_id, copy);
    Ok(Started { operation_id })
}

#[derive(Serialize)]
struct Progress {
    copied_clusters: u64,
    total_clusters: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn check(control: Control, params: Started) -> Result<Progress, RpcError> {
    let Started { operation_id } = params;
    let mut known = control.copies().known.borrow_mut();
    let Some(copy) = known.get(&operation_id).cloned() else {
        let what = format!(
            "no shallow copy has the operation_id {operation_id}; one whose end was asked for is forgotten"
        );
        return Err(RpcError::errno(Errno::NODEV, what));
    };
    let ended = copy.ended();
    if ended.is_some() {
        known.remove(&operation_id);
    }
    let (state, error) = match &ended {
        None => ("in progress", None),
        Some(Ok(())) => ("complete", None),
        Some(Err(error)) => ("error", Some(reason(error))),
    };
    Ok(Progress { copied_clusters: copy.copied(), total_clusters: copy.total(), state, error })
}

/// The words of the error number, as SPDK says them.
fn reason(error: &LvolError) -> String {
    Errno::from_raw(error.errno()).to_string()
}
