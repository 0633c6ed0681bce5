//! What ties a lane table to the thread it lives on: who steps it when nobody else does.

use std::rc::Rc;

use crate::LaneTable;
use crate::table::Table;

/// Steps the table in the thread's later turns: when a turn's budget was spent, or for lanes that want
/// to be polled always.
#[derive(Default)]
pub(crate) struct Service {}

impl Service {
    pub(crate) fn table_of_thread() -> Option<LaneTable> {
        None
    }

    pub(crate) fn ensure(&self, _table: &Rc<Table>, _always: bool) {}

    pub(crate) fn wake(&self) {}
}
