//! A thread's data about a store to which it does I/O. It never leaves the thread.

use std::cell::Cell;
use std::sync::Arc;

use spindle_block::{Channel, IoError, IoErrorKind, Operation};
use spindle_mem::{Buffers, IoBuf};

use crate::space::Reserve;
use crate::waiting::OnDrop;

/// Bytes of zeroes written at a time to a device without a write-zeroes command.
const ZEROES: u64 = 1 << 20;

/// A thread's access to the device of a store.
pub(crate) struct StoreLocal {
    channel: Channel,
    /// This thread's reserve of clusters.
    pub(crate) reserve: Arc<Reserve>,
    /// Tells the metadata thread that this is gone; that thread itself has none.
    _end: Option<OnDrop>,
    /// Set once the device has refused write-zeroes.
    zeroes_by_hand: Cell<bool>,
    /// Set once the device has refused unmap.
    refuses_unmap: Cell<bool>,
}

impl StoreLocal {
    pub(crate) fn new(channel: Channel, reserve: Arc<Reserve>, end: Option<OnDrop>) -> StoreLocal {
        StoreLocal {
            channel,
            reserve,
            _end: end,
            zeroes_by_hand: Cell::new(false),
            refuses_unmap: Cell::new(false),
        }
    }

    /// The channel to the store's device.
    #[inline]
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Makes a range read zero; writes zeroes if the device has no command for it.
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

    /// Makes a range of a new cluster read zero: by an unmap where that makes zeroes, so that unwritten parts
    /// take no space of the host, otherwise by writing them. Durable as a write is.
    pub(crate) async fn clear(&self, offset: u64, len: u64) -> Result<(), IoError> {
        match self.clears_by_unmap() && self.unmap(offset, len).await? {
            true => Ok(()),
            false => self.write_zeroes(offset, len).await,
        }
    }

    /// True if the device has a command that copies ranges.
    pub(crate) fn copies(&self) -> bool {
        self.channel.device().supports(Operation::Copy)
    }

    /// True if an unmap makes zeroes.
    pub(crate) fn clears_by_unmap(&self) -> bool {
        self.channel.geometry().unmap_reads_zero() && !self.refuses_unmap()
    }

    /// Tells the device that a range is not needed. The device may ignore it; false if it did.
    pub(crate) async fn unmap(&self, offset: u64, len: u64) -> Result<bool, IoError> {
        match self.channel().unmap(offset, len).await {
            Err(error) if error.kind == IoErrorKind::Unsupported => {
                self.refuses_unmap.set(true);
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// True if the device has refused unmap.
    pub(crate) fn refuses_unmap(&self) -> bool {
        self.refuses_unmap.get()
    }

    /// Waits until every request that this thread had made before the first poll has ended.
    pub(crate) async fn quiesce(&self) {
        self.channel().quiesce().await;
    }
}
