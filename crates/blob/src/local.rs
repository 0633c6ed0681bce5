//! What a thread keeps of a store that it does I/O to. It never leaves the thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use spindle_block::{Channel, Device, IoError, IoErrorKind, OpenError};
use spindle_mem::{Buffers, IoBuf};

use crate::reserve::Reserve;

/// Bytes of zeroes written at a time to a device that has no command for it.
const ZEROES: u64 = 1 << 20;

/// What tells a device from every other while it exists.
pub(crate) fn key_of(device: &Arc<dyn Device>) -> usize {
    Arc::as_ptr(device).cast::<u8>() as usize
}

/// A thread's way to the device of a store.
pub(crate) struct Local {
    channel: Channel,
    /// The clusters that this thread has in hand.
    pub(crate) reserve: Arc<Reserve>,
    /// Its channels to external snapshots, by the address of the device.
    external: RefCell<BTreeMap<usize, Rc<Channel>>>,
    /// The device has said that it knows no write-zeroes.
    zeroes_by_hand: Cell<bool>,
    /// It has said that it knows no unmap.
    refuses_unmap: Cell<bool>,
}

impl Local {
    pub(crate) fn new(channel: Channel, reserve: Arc<Reserve>) -> Local {
        Local {
            channel,
            reserve,
            external: RefCell::default(),
            zeroes_by_hand: Cell::new(false),
            refuses_unmap: Cell::new(false),
        }
    }

    /// The channel to the store's device.
    #[inline]
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// This thread's channel to an external snapshot.
    pub(crate) fn external(&self, device: &Arc<dyn Device>) -> Result<Rc<Channel>, OpenError> {
        let key = key_of(device);
        let found = self.external.borrow().get(&key).cloned();
        if let Some(channel) = found {
            return Ok(channel);
        }
        let channel = Rc::new(Channel::open_unheld(device.clone())?);
        self.external.borrow_mut().insert(key, channel.clone());
        Ok(channel)
    }

    /// Lets go of this thread's channel to an external snapshot.
    pub(crate) fn close_external(&self, device: &Arc<dyn Device>) {
        self.external.borrow_mut().remove(&key_of(device));
    }

    /// Makes a range read zero, by writing zeroes where the device has no command for it.
    pub(crate) async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let channel = self.channel();
        if !self.zeroes_by_hand.get() {
            match channel.write_zeroes(offset, len).await {
                Err(error) if error.kind == IoErrorKind::Unsupported => self.zeroes_by_hand.set(true),
                done => return done,
            }
        }
        let mut buffers = Buffers::from(IoBuf::zeroed(ZEROES.min(len) as usize));
        let mut at = 0;
        while at < len {
            let now = ZEROES.min(len - at);
            if now < buffers.len() as u64 {
                drop(buffers.split_off(now as usize));
            }
            let (result, back) = channel.write(offset + at, buffers).await;
            result?;
            buffers = back;
            at += now;
        }
        Ok(())
    }

    /// Tells the device that a range is not needed. That is advice; false if it did not take it.
    pub(crate) async fn unmap(&self, offset: u64, len: u64) -> Result<bool, IoError> {
        match self.channel().unmap(offset, len).await {
            Err(error) if error.kind == IoErrorKind::Unsupported => {
                self.refuses_unmap.set(true);
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// Whether the device has said that it knows no unmap.
    pub(crate) fn refuses_unmap(&self) -> bool {
        self.refuses_unmap.get()
    }

    /// Waits until every request that was made on this thread when this was first polled has ended.
    pub(crate) async fn quiesce(&self) {
        self.channel().quiesce().await;
    }
}
