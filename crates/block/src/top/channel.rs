//! A thread's handle on a device: async calls in bytes.
//!
//! A [`Channel`] belongs to the thread that opened it and cannot leave it. All channels of one device on
//! one thread share one lane; the lane closes when the last is dropped and its requests have ended. This
//! is the top of the I/O stack: bounds and alignment are checked here, once, and only here does a request
//! have a future. Dropping that future detaches the request: it goes on, and its buffers belong to it until
//! the device returns them to their pool. A detached change of data that has not reached a device is
//! cancelled; newer changes wait for the blocks that an older detached one may still reach. Requests in
//! flight at the same time may complete, and reach the disk, in any order.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

use spindle_mem::Buffers;
use spindle_reactor::Hold;

use crate::devices::emulation::{Emulation, is_emulated};
use crate::path::lane_state::Shape;
use crate::path::queues::DESCRIBED;
use crate::path::table::Table;
use crate::top::transfer::{Command, Transfer};
use crate::{Device, Geometry, IoError, IoErrorKind, LaneTable, OpenError, Operation};

/// The current thread's counted handle on a device.
///
/// It stays on its thread:
/// ```compile_fail,E0277
/// fn goes_elsewhere<T: Send>() {}
/// goes_elsewhere::<spindle_block::Channel>();
/// ```
/// A buffer belongs to the device until the request has ended:
/// ```compile_fail,E0382
/// # async fn example(channel: spindle_block::Channel, mut buffer: spindle_mem::IoBuf) {
/// let read = channel.read(0, buffer);
/// buffer[0] = 1; // moved into the request
/// # }
/// ```
/// and comes back with the result:
/// ```
/// # async fn example(channel: spindle_block::Channel, buffer: spindle_mem::IoBuf) {
/// let (result, buffers) = channel.read(0, buffer).await;
/// # let _ = (result, buffers);
/// # }
/// ```
pub struct Channel {
    pub(crate) table: Rc<Table>,
    device: Arc<dyn Device>,
    /// Shared by all channels of the thread on this device.
    shape: Shape,
    pub(crate) lane: u32,
    pub(crate) opener: Cell<u32>,
    pub(crate) user: Cell<u32>,
    writable: Cell<bool>,
    /// Keeps the thread from exiting, and names the device in its dump.
    hold: Option<Hold>,
    /// The channel for operations that the device's own lanes lack, once one was needed.
    emulation: OnceCell<Box<Channel>>,
}

impl Channel {
    /// Opens a device on the Spindle thread that runs the caller. The thread does not exit while the channel
    /// is open.
    ///
    /// # Errors
    /// [`NotOnThread`](OpenError::NotOnThread) elsewhere, and any error of the device.
    pub fn open(device: Arc<dyn Device>) -> Result<Channel, OpenError> {
        let mut channel = Channel::open_unheld(device)?;
        channel.hold = Some(Hold::channel(channel.device.name()));
        Ok(channel)
    }

    /// As [`open`](Self::open), for a layer that keeps the channel in a thread's
    /// [extension](spindle_reactor::extension): the thread may exit, which drops the channel.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_unheld(device: Arc<dyn Device>) -> Result<Channel, OpenError> {
        match LaneTable::current() {
            Some(table) => table.channel(device),
            None => Err(OpenError::NotOnThread { device: device.name().to_owned() }),
        }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The device's shape, as it was when this thread opened the device or was last told of a change.
    #[inline]
    pub fn geometry(&self) -> Geometry {
        self.shape.get()
    }

    /// Reads the device's shape again, for a device that does not announce when it has grown.
    pub fn refresh(&self) {
        self.shape.set(self.device.geometry());
    }

    /// Marks requests made from now on by this channel, and by clones made of it from now on, as those of an
    /// opener: each then knows [when it was submitted](crate::Io::submitted) and can be found while it is
    /// [under way](LaneTable::overdue). 0 marks none.
    pub fn set_opener(&self, opener: u32) {
        self.opener.set(opener);
    }

    /// Makes requests from now on those of a user, whose number is the same on all its channels and pairs of
    /// a thread: together they have one user's part of a limit. Without this each channel is a user, with its clones.
    pub fn set_user(&self, user: u32) {
        self.user.set(user | DESCRIBED);
    }

    /// Makes this channel, and clones made of it from now on, refuse requests that change data: for an opener
    /// with read access only.
    pub fn set_read_only(&self) {
        self.writable.set(false);
    }

    /// Fills `buffers` from byte `offset` on; comes back with them. Nothing happens before the first
    /// poll. `Buffers` of several parts are filled in order.
    #[inline]
    pub fn read(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        Transfer::new(self, Operation::Read, offset, buffers.into())
    }

    /// Stores `buffers` from byte `offset` on; comes back with them. Durable after a later
    /// [`flush`](Self::flush), or at once with [`Transfer::fua`]. Nothing happens before the first poll.
    #[inline]
    pub fn write(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        Transfer::new(self, Operation::Write, offset, buffers.into())
    }

    /// Makes `len` bytes from byte `offset` on read as zeroes.
    pub fn write_zeroes(&self, offset: u64, len: u64) -> Command<'_> {
        Command::new(self.way(Operation::WriteZeroes), Operation::WriteZeroes, offset, len)
    }

    /// Tells the device that `len` bytes from byte `offset` on hold nothing of use. What they read
    /// afterwards: [`Geometry::unmap_reads_zero`].
    pub fn unmap(&self, offset: u64, len: u64) -> Command<'_> {
        Command::new(self, Operation::Unmap, offset, len)
    }

    /// Compares `buffers` with the data from byte `offset` on; comes back with them. A difference is a
    /// [`Miscompare`](IoErrorKind::Miscompare). Nothing happens before the first poll.
    pub fn compare(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        Transfer::new(self.way(Operation::Compare), Operation::Compare, offset, buffers.into())
    }

    /// Compares the first half of `buffers` with the data from byte `offset` on and, if they are equal,
    /// stores the second half there; nothing changes the range in between.
    pub fn compare_and_write(&self, offset: u64, buffers: impl Into<Buffers>) -> Transfer<'_> {
        let buffers = buffers.into();
        let len = buffers.len() as u64;
        if !len.is_multiple_of(2) {
            // Half a byte more is refused like any other length that is not a whole number of blocks.
            return Transfer::of_len(self, Operation::CompareAndWrite, offset, 1, buffers);
        }
        Transfer::of_len(
            self.way(Operation::CompareAndWrite),
            Operation::CompareAndWrite,
            offset,
            len / 2,
            buffers,
        )
    }

    /// Copies `len` bytes from byte `from` on to byte `offset`.
    pub fn copy(&self, offset: u64, from: u64, len: u64) -> Command<'_> {
        Command::copy(self.way(Operation::Copy), offset, from, len)
    }

    /// The first byte from `offset` on that may hold data; the end of the device if there is none.
    ///
    /// # Errors
    /// Many devices cannot tell: [`Unsupported`](IoErrorKind::Unsupported).
    pub async fn seek_data(&self, offset: u64) -> Result<u64, IoError> {
        Command::new(self, Operation::SeekData, offset, 0).found().await
    }

    /// The first byte from `offset` on that is known to hold no data; the end of the device if there is none.
    ///
    /// # Errors
    /// As [`seek_data`](Self::seek_data).
    pub async fn seek_hole(&self, offset: u64) -> Result<u64, IoError> {
        Command::new(self, Operation::SeekHole, offset, 0).found().await
    }

    /// Resets the device; requests under way end, with success or an error.
    pub fn reset(&self) -> Command<'_> {
        Command::new(self.way(Operation::Reset), Operation::Reset, 0, 0)
    }

    /// Makes every write durable that was complete when this was first polled. A failed flush says that
    /// any write since the last good one may be lost.
    pub fn flush(&self) -> Command<'_> {
        Command::new(self, Operation::Flush, 0, 0)
    }

    /// Waits until every request that was in this thread's lane of the device at the first poll has ended,
    /// from any origin: channels (also with a dropped future), queue pairs, lanes above. Later requests
    /// are neither waited for nor held up.
    pub async fn quiesce(&self) {
        let (ending, list) = {
            let epochs = &mut self.table.inner.borrow_mut().queues.lanes[self.lane as usize].epochs;
            (epochs.turn(), epochs.ending())
        };
        let are_over = || {
            let inner = self.table.inner.borrow();
            inner.queues.lanes[self.lane as usize].epochs.are_over(ending).then_some(())
        };
        list.until(are_over).await;
    }

    /// Drops the handle and, if it was the last on this thread, waits until the lane's requests, detached
    /// ones included, have ended. Dropping this future closes without waiting.
    pub async fn close(self) {
        let (table, lane) = (self.table.clone(), self.lane);
        table.close(lane, || drop(self)).await;
    }

    /// Returns the channel for an operation: this one, or one above it if the device's lanes lack the
    /// operation.
    fn way(&self, operation: Operation) -> &Channel {
        if !is_emulated(&*self.device, operation) {
            return self;
        }
        if self.emulation.get().is_none()
            && let Ok(above) = LaneTable(self.table.clone()).channel(Emulation::over(self.device.clone()))
        {
            // Cannot fail: it was empty above.
            let _ = self.emulation.set(Box::new(above));
        }
        match self.emulation.get() {
            Some(above) => {
                above.opener.set(self.opener.get());
                above.user.set(self.user.get());
                above.writable.set(self.writable.get());
                above
            }
            // The device's own lane then refuses the operation.
            None => self,
        }
    }

    /// The range in blocks, if the request is valid.
    #[inline]
    pub(crate) fn check(
        &self,
        operation: Operation,
        offset: u64,
        len: u64,
    ) -> Result<(u64, u64), IoErrorKind> {
        let geometry = self.shape.get();
        if operation.changes_data() && !(geometry.writable() && self.writable.get()) {
            return Err(IoErrorKind::ReadOnly);
        }
        if (offset | len) & (u64::from(geometry.block_size()) - 1) != 0 {
            return Err(IoErrorKind::Unaligned);
        }
        let (start, count) = (offset >> geometry.block_shift(), len >> geometry.block_shift());
        if geometry.contains(start, count) { Ok((start, count)) } else { Err(IoErrorKind::OutOfRange) }
    }
}

impl Clone for Channel {
    fn clone(&self) -> Channel {
        // Never refused: the lane is open, and stays open while `self` holds it.
        self.table.retain(self.lane);
        Channel {
            table: self.table.clone(),
            device: self.device.clone(),
            shape: self.shape.clone(),
            lane: self.lane,
            opener: self.opener.clone(),
            user: self.user.clone(),
            writable: self.writable.clone(),
            hold: self.hold.clone(),
            emulation: OnceCell::new(),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.table.release(self.lane);
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({})", self.device.name())
    }
}

impl LaneTable {
    /// Opens a device on this table. The channel holds no thread.
    ///
    /// # Errors
    /// Any error of the device.
    pub fn channel(&self, device: Arc<dyn Device>) -> Result<Channel, OpenError> {
        let (lane, shape) = self.0.open(&device)?;
        let user = self.0.inner.borrow_mut().queues.new_user();
        Ok(Channel {
            table: self.0.clone(),
            shape,
            device,
            lane,
            opener: Cell::new(0),
            user: Cell::new(user),
            writable: Cell::new(true),
            hold: None,
            emulation: OnceCell::new(),
        })
    }
}
