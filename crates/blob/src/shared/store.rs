//! The view that all threads have of a store.
//!
//! Shared by reference; written by the metadata thread only. The locks here are held for a few instructions,
//! never across an await.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use spindle_format::BlobId;
use spindle_reactor::{ReportLevel, Thread, report};

use super::device::StoreDevice;
use super::flushing::Flushing;
use super::store_local::StoreLocal;
use crate::error::BlobError;
use crate::map::Arena;
use crate::ordering::{Order, Point};
use crate::space::Reserve;
use crate::waiting::{OnDrop, locked};

/// A store as all threads see it.
pub(crate) struct StoreShared {
    /// Its name, that of its device.
    pub(crate) name: Arc<str>,
    /// Its device.
    pub(crate) device: Arc<StoreDevice>,
    /// The thread that called init or load and does all metadata work.
    pub(crate) md: Thread,
    /// What that thread does with a notice.
    pub(crate) on_notice: fn(&Arc<StoreShared>, Notice),
    /// Bytes of a cluster.
    pub(crate) cluster_size: u32,
    /// Bytes of the smallest I/O.
    pub(crate) io_unit: u32,
    /// The leaves of its blobs' maps.
    pub(crate) arena: Arc<Arena>,
    /// Which ordering points are kept.
    pub(crate) order: Order,
    /// Set if nothing may be written.
    pub(crate) read_only: bool,
    /// Set when the store was left.
    pub(crate) unloaded: AtomicBool,
    /// Set when the last handle was dropped: the store is about to be left.
    pub(crate) abandoned: AtomicBool,
    /// The flushes that are under way.
    pub(crate) flushing: Flushing,
    /// The failed metadata write, or flush, after which nothing may be changed.
    pub(crate) poison: OnceLock<Arc<str>>,
    /// The threads that allocate clusters, each with its own access to the device.
    pub(crate) members: Mutex<Vec<Member>>,
}

/// A thread that allocates clusters for a store's blobs.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) thread: Thread,
    /// Its reserve of clusters.
    pub(crate) reserve: Arc<Reserve>,
}

/// What any thread tells the metadata thread of a store.
pub(crate) enum Notice {
    /// A thread has dropped its access to the device; this was its reserve, which counts as free until then.
    MemberLeft(Arc<Reserve>),
    /// The view of this blob was dropped: its map can be compacted.
    Unseen(BlobId),
}

impl StoreShared {
    /// This thread's access to the device, made and registered on first use.
    pub(crate) fn local(self: &Arc<StoreShared>) -> Result<Rc<StoreLocal>, BlobError> {
        if let Some(local) = self.device.known() {
            return Ok(local);
        }
        let reserve = Arc::<Reserve>::default();
        {
            // An unload takes the list, after which no thread can add itself.
            let mut members = locked(&self.members);
            if self.unloaded.load(Ordering::Acquire) {
                return Err(self.gone());
            }
            members.extend(Thread::current().map(|thread| Member { thread, reserve: reserve.clone() }));
        }
        let (store, mine) = (self.clone(), reserve.clone());
        let end = OnDrop::new(move || store.tell(Notice::MemberLeft(mine)));
        self.device.local(reserve, Some(end)).map_err(|source| self.open_error(source))
    }

    /// Tells the metadata thread, if that still exists.
    pub(crate) fn tell(self: &Arc<StoreShared>, notice: Notice) {
        let store = self.clone();
        let _ = self.md.send_msg(move || (store.on_notice)(&store, notice));
    }

    pub(crate) fn open_error(&self, source: spindle_block::OpenError) -> BlobError {
        BlobError::Open { store: self.name.clone(), source: Arc::new(source) }
    }

    /// Makes everything written before durable. A failure, also of another flush that overlaps this one,
    /// poisons the store. Must not be dropped before its end.
    pub(crate) async fn flush(&self, local: &StoreLocal) -> Result<(), BlobError> {
        let number = self.flushing.begin();
        let flushed = local.channel().flush().await.map_err(BlobError::from);
        let flushed = flushed.inspect_err(|error| self.poison(error));
        let begun = self.flushing.end(number);
        flushed?;
        if !self.order.keeps(Point::FailedFlushLasts) {
            return Ok(());
        }
        self.flushing.settled(begun).await;
        self.check_poison()
    }

    /// Refuses all changes from now on: the contents of the disk are unknown.
    pub(crate) fn poison(&self, cause: &BlobError) {
        self.poison_by(cause.to_string().into());
    }

    /// Notes the first cause, and reports it.
    fn poison_by(&self, cause: Arc<str>) -> BlobError {
        let first = self.poison.set(cause.clone()).is_ok();
        let cause = self.poison.get().unwrap_or(&cause).clone();
        let poisoned = BlobError::Poisoned { store: self.name.clone(), cause };
        if first {
            report(ReportLevel::Error, "blob", || poisoned.to_string());
        }
        poisoned
    }

    /// An error if the contents of the disk are unknown.
    pub(crate) fn check_poison(&self) -> Result<(), BlobError> {
        match self.poison.get() {
            Some(cause) => Err(BlobError::Poisoned { store: self.name.clone(), cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// The error of a task that panicked: its state in memory is unknown, so nothing may be changed.
    pub(crate) fn panicked(&self, how: &dyn std::fmt::Display) -> BlobError {
        self.poison_by(format!("an operation ended without a result: {how}").into())
    }

    /// Poisons the store if it is dropped while a panic unwinds.
    pub(crate) fn poison_by_panic(self: &Arc<StoreShared>) -> PoisonByPanic {
        PoisonByPanic(self.clone())
    }

    /// True if the store was left.
    pub(crate) fn is_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Acquire)
    }

    pub(crate) fn gone(&self) -> BlobError {
        BlobError::Unloaded { store: self.name.clone() }
    }
}

/// See [`StoreShared::poison_by_panic`].
pub(crate) struct PoisonByPanic(Arc<StoreShared>);

impl Drop for PoisonByPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.panicked(&"it panicked"));
        }
    }
}
