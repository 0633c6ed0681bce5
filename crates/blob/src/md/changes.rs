//! Changes of a blob's map that wait to be written.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::error::BlobError;
use crate::space::Fill;
use crate::waiting::Resolver;

/// A change waiting to be written.
pub(super) struct Change {
    pub(super) index: u64,
    pub(super) cluster: Option<(u32, Fill)>,
    pub(super) done: Resolver<Result<(), BlobError>>,
}

impl Change {
    pub(super) fn number(&self) -> Option<u32> {
        self.cluster.map(|(cluster, _)| cluster)
    }
}

/// Changes of one blob's map, by slot of its table.
#[derive(Default)]
pub(crate) struct Changes {
    pub(super) by_slot: RefCell<BTreeMap<u32, Vec<Change>>>,
}
