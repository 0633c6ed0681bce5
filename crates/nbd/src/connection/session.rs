//! The data shared by the requests of one connection. On the connection's thread only.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use spindle_block::{Channel, Geometry};
use spindle_mem::Pool;

use super::grace::Grace;
use super::{Control, Stop};
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
    /// Set once the requests under way are no longer waited for.
    given_up: Cell<bool>,
    /// What the device has left to end requests, once the connection was told to end.
    patience: RefCell<Grace>,
}

impl Session {
    pub(crate) fn new(
        channel: Channel,
        exported: Arc<Exported>,
        rules: Rules,
        pool: Pool,
        control: Arc<Control>,
        patience: Duration,
    ) -> Rc<Session> {
        let geometry = channel.geometry();
        let writer = Writer::new(&exported.overlaps);
        let (dirty, given_up) = (Cell::new(false), Cell::new(false));
        let patience = RefCell::new(Grace::new(patience));
        Rc::new(Session {
            channel,
            geometry,
            exported,
            rules,
            writer,
            pool,
            control,
            dirty,
            given_up,
            patience,
        })
    }

    /// True once the device has kept requests for too long since the connection was told to end. Its time runs while the
    /// connection `waits` for some; the task is woken when it is over.
    pub(crate) fn is_kept_too_long(&self, waits: bool, cx: &mut Context<'_>) -> bool {
        self.patience.borrow_mut().is_over(waits && self.control.told() != Stop::No, cx)
    }

    /// Ends the requests under way for the client, whatever the device does with them.
    pub(crate) fn give_up(&self) {
        self.given_up.set(true);
    }

    pub(crate) fn has_given_up(&self) -> bool {
        self.given_up.get()
    }

    /// Makes the client's writes durable, unless the device keeps that for too long. False if they may be lost.
    pub(crate) async fn flush_at_end(&self) -> bool {
        let mut flush = pin!(self.channel.flush());
        poll_fn(|cx| {
            self.control.belong_to(cx);
            match flush.as_mut().poll(cx) {
                Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
                Poll::Pending if self.is_kept_too_long(true, cx) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
