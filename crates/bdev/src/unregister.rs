//! Removal of a bdev: on the app thread. It always ends, even if users of the bdev ignore it.
//!
//! 1. It cannot be opened any more.
//! 2. Each descriptor gets [`Event::Remove`] on its own thread.
//! 3. The removal waits for every [`Grace`]: a holder with work to do first keeps it until that is done.
//! 4. Descriptors that are still open become husks: their requests end as removed. So do those of the bdevs that stand
//!    on it, all at once, so that none waits for what another holds.
//! 5. Requests that it has passed on, and that wait or are kept in a bdev below, end early; that one goes on with the
//!    requests of others.
//! 6. The removal waits for requests that the device still holds, such as those that a file has given to the kernel, and
//!    for the bdevs that stand on it.
//! 7. Its names are free, the log has an entry, and its module releases what it held.
//!
//! So a removal waits for work that holders announced and for the device, but not for holders that ignore it.

use std::future::poll_fn;
use std::pin::pin;

use spindle_block::Delivered;

use crate::counter::Counter;
use crate::error::errno;
use crate::report;
use crate::{Bdev, BdevError, Event, Grace, NotificationKind, Phase, Registry};

/// A removal whose bdev takes no request any more.
pub(crate) struct Removal {
    bdev: Bdev,
    /// The bdevs that stand on it.
    stays: Counter,
    /// Its lanes.
    emptied: Option<Delivered>,
}

/// Waits until holders have given up every grace; a dump shows of which bdev, and its holders when
/// the removal began: one that has closed it may still keep its grace.
async fn graces_given_up(bdev: &Bdev, graces: &Counter) {
    let mut none = pin!(graces.none());
    poll_fn(|cx| {
        let given_up = none.as_mut().poll(cx);
        if given_up.is_pending() {
            spindle_reactor::waits_for_this(kept_grace(bdev).into());
        }
        given_up
    })
    .await;
}

/// What a removal waits for while a grace is kept.
fn kept_grace(bdev: &Bdev) -> String {
    format!("the Grace of bdev {:?} that one of its holders keeps: {}", bdev.name(), bdev.holders())
}

impl Registry {
    /// Unregisters a bdev, on the app thread. When this returns it is gone: it has no name, and its device
    /// has no request. Dropping the future does not stop it.
    ///
    /// A [`Virtual`](crate::Virtual) bdev that comes back stays asked for: it is made again when its base comes again,
    /// and cannot be created until then. [`delete_virtual`](Self::delete_virtual) forgets it.
    ///
    /// # Errors
    /// It is being removed already, or is gone; the runtime stops.
    pub async fn unregister(&self, bdev: &Bdev) -> Result<(), BdevError> {
        let bdev = bdev.clone();
        self.on_app(async move |registry| registry.unregister_here(&bdev).await).await
    }

    /// Unregisters the bdev of that name, alias or UUID if it belongs to that module.
    ///
    /// # Errors
    /// There is none, or it is another module's; and as [`unregister`](Self::unregister).
    pub async fn delete(&self, module: &str, name: &str) -> Result<(), BdevError> {
        let bdev = self.of_module(module, name)?;
        self.unregister(&bdev).await
    }

    /// The bdev of that name, alias or UUID, if it belongs to that module.
    ///
    /// # Errors
    /// There is none, or it is another module's.
    pub fn of_module(&self, module: &str, name: &str) -> Result<Bdev, BdevError> {
        let bdev = self.get(name)?;
        if bdev.module() == module {
            return Ok(bdev);
        }
        let (wanted, module) = (module.to_owned(), bdev.module().to_owned());
        Err(BdevError::OtherModule { name: name.to_owned(), module, wanted })
    }

    /// As [`unregister`](Self::unregister), on the app thread.
    pub(crate) async fn unregister_here(&self, bdev: &Bdev) -> Result<(), BdevError> {
        let removal = self.begin_to_unregister(bdev).await?;
        self.end_unregistering(removal).await
    }

    /// The first half: resolves when requests to the bdev end as removed.
    pub(crate) async fn begin_to_unregister(&self, bdev: &Bdev) -> Result<Removal, BdevError> {
        self.begin_removal(bdev)?;
        let (graces, stays) = (Counter::default(), Counter::default());
        let grace = Grace::new(graces.begin(), stays.begin());
        bdev.0.tell(|| Event::Remove(grace.clone()));
        drop(grace);
        graces_given_up(bdev, &graces).await;
        let emptied = bdev.0.device.state().map(spindle_block::DeviceState::remove);
        bdev.0.husk.set();
        Ok(Removal { bdev: bdev.clone(), stays, emptied })
    }

    /// The second half: resolves when the bdev is gone.
    pub(crate) async fn end_unregistering(&self, removal: Removal) -> Result<(), BdevError> {
        let Removal { bdev, stays, emptied } = removal;
        let bdev = &bdev;
        if let Some(emptied) = emptied {
            emptied.await;
        }
        stays.none().await;
        self.end_removal(bdev);
        let disk = bdev.disk().clone();
        // In its own task, so that a panic of the module does not stop the removal.
        let destructed = spindle_reactor::spawn_local(async move { disk.destruct().await }).await;
        self.leave_base(bdev);
        bdev.0.gone.set();
        destructed.map_err(|error| BdevError::Module {
            what: format!("removing bdev {:?}", bdev.name()),
            why: error.to_string(),
            errno: errno::EIO,
        })
    }

    fn begin_removal(&self, bdev: &Bdev) -> Result<(), BdevError> {
        let mut state = bdev.0.state();
        match state.phase {
            Phase::Ready => state.phase = Phase::Removing,
            Phase::Removing => return Err(BdevError::RemovedTwice { name: bdev.name().to_owned() }),
            Phase::Gone => return Err(BdevError::Gone { name: bdev.name().to_owned() }),
        }
        Ok(())
    }

    /// Frees its names, and adds an entry to the log if its registration has one.
    fn end_removal(&self, bdev: &Bdev) {
        let all = bdev.0.names();
        self.0.names().remove(&bdev.0, &all);
        let mut state = bdev.0.state();
        state.phase = Phase::Gone;
        let announced = state.announced;
        drop(state);
        self.look_again();
        report::event(bdev, "is gone");
        if announced {
            self.0.log.add(NotificationKind::Unregister, bdev.name());
        }
    }
}
