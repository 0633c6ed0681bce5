//! The data shared by the requests of one connection. On the connection's thread only.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use spindle_block::{Channel, Geometry};
use spindle_mem::Pool;

use super::Control;
use crate::codec::Rules;
use crate::overlap::Writer;
use crate::server::Exported;

/// What the requests of one connection work with.
pub(crate) struct Session {
    pub(crate) channel: Channel,
    /// As announced to the client.
    pub(crate) geometry: Geometry,
    pub(crate) exported: Arc<Exported>,
    pub(crate) rules: Rules,
    pub(crate) writer: Writer,
    pub(crate) pool: Pool,
    pub(crate) control: Arc<Control>,
    /// Set if a write is not covered by a flush.
    pub(crate) dirty: Cell<bool>,
}

impl Session {
    pub(crate) fn new(
        channel: Channel,
        exported: Arc<Exported>,
        rules: Rules,
        pool: Pool,
        control: Arc<Control>,
    ) -> Rc<Session> {
        let geometry = channel.geometry();
        let writer = Writer::new(&exported.overlaps);
        let dirty = Cell::new(false);
        Rc::new(Session { channel, geometry, exported, rules, writer, pool, control, dirty })
    }
}
