//! Leaves stores, for good or to load them again.
//!
//! A stop and the removal of a bdev wait for the unload of a store on it, unless the bdev keeps requests of that for too long.
//! Then the bdev is removed first, which ends them; the store is not clean, and the next load recovers it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use spindle_bdev::Grace;
use spindle_reactor::{ReportLevel, report, spawn_local, tell, timeout};

use crate::lvol::LvolInner;
use crate::store::{StoreInner, locked};
use crate::{LvolError, Lvols};

/// How long an unload may take while a stop or the removal of the bdev waits for it; at a stop, the unloads of all stores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long one may take at a stop in any case.
pub(crate) const LEAST_PATIENCE: Duration = Duration::from_secs(5);

/// The most volumes that a line of the log names.
const SHOWN: usize = 8;

impl StoreInner {
    /// As [`unload`](Self::unload), once all volumes were opened.
    pub(crate) async fn unload_loaded(self: &Arc<StoreInner>) -> Result<(), LvolError> {
        self.ready.seen().await;
        self.unload().await
    }

    /// Warns that volumes in use go with the bdev below them.
    pub(crate) fn warn_of_removal(&self) {
        let open = |lvol: &Arc<LvolInner>| {
            let bdev = lvol.bdev().filter(|bdev| bdev.descriptors() > 0)?;
            Some(format!("{:?} (open for {})", lvol.shown(), bdev.holders()))
        };
        let all: Vec<String> = self.volumes.all().iter().filter_map(open).collect();
        if all.is_empty() {
            return;
        }
        let shown = &all[..all.len().min(SHOWN)];
        report(ReportLevel::Warning, "vbdev_lvol", || {
            let more = all.len() - shown.len();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!(
                "lvolstore {:?} is unloaded, as its bdev {:?} is being removed, with volumes in use: {}{more}; create the \
                 bdev again to have them back",
                self.name().as_str(),
                self.base.name(),
                shown.join(", ")
            )
        });
    }

    /// Leaves the store cleanly: closes volumes first, then the Blobstore, then the bdev. On the app thread.
    pub(crate) async fn unload(self: &Arc<StoreInner>) -> Result<(), LvolError> {
        if !self.close().await {
            self.left.seen().await;
            return Ok(());
        }
        for lvol in self.volumes.all() {
            // A close that fails loses nothing: changes were synced. The unload reports what is wrong.
            let _ = lvol.close(self).await;
            self.volumes.remove(&lvol);
        }
        let unloaded = self.blobstore.unload().await;
        self.leave();
        tell("vbdev_lvol", || format!("lvolstore {:?} is closed", self.name().as_str()));
        unloaded.map_err(LvolError::blob(format!("lvolstore {:?}", self.name().as_str())))
    }

    /// As [`unload`](Self::unload); if that takes longer than `most`, the bdev is removed, which ends its requests.
    pub(crate) async fn unload_within(self: &Arc<StoreInner>, most: Duration) -> Result<(), LvolError> {
        let mut unloaded = pin!(self.unload());
        if let Ok(ended) = timeout(most, unloaded.as_mut()).await {
            return ended;
        }
        self.give_up_unload(most);
        unloaded.await
    }

    /// As [`unload`](Self::unload), for the removal of the bdev, which waits while `grace` is kept.
    pub(crate) async fn unload_for_removal(self: &Arc<StoreInner>, grace: Grace) -> Result<(), LvolError> {
        let (mut unloaded, mut overdue) = (pin!(self.unload_within(PATIENCE)), pin!(self.overdue.seen()));
        let in_time = poll_fn(|cx| match unloaded.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => overdue.as_mut().poll(cx).map(|()| None),
        });
        let in_time = in_time.await;
        drop(grace);
        match in_time {
            Some(ended) => ended,
            None => unloaded.await,
        }
    }

    /// Has the bdev removed although the store is still on it.
    fn give_up_unload(self: &Arc<StoreInner>, after: Duration) {
        report(ReportLevel::Error, "vbdev_lvol", || {
            format!(
                "lvolstore {:?} is not unloaded cleanly: that has taken {after:?}, so its bdev {:?} is removed with the \
                 requests that it keeps; the next load recovers the store",
                self.name().as_str(),
                self.base.name()
            )
        });
        self.overdue.set();
        let (store, base) = (self.clone(), self.base.clone());
        drop(spawn_local(async move {
            if let Ok(registry) = store.registry() {
                // Refused if it is being removed already.
                let _ = registry.unregister(&base).await;
            }
        }));
    }

    /// Removes the store from the list and releases its bdev.
    pub(crate) fn leave(self: &Arc<StoreInner>) {
        if let Some(lvols) = self.lvols.upgrade() {
            Lvols(lvols).remove_store(self);
        }
        let desc = locked(&self.base_desc).take();
        drop(desc);
        self.left.set();
    }
}
