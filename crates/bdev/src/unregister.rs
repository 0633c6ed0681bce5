//! How a bdev goes: on the app thread, to its end whatever its users do.
//!
//! 1. Nobody opens it any more.
//! 2. Each descriptor is told ([`Event::Remove`]) on its own thread.
//! 3. Every [`Grace`] is waited for: a holder with work to do first keeps it until that is done.
//! 4. Descriptors that are still open become husks: what they send ends as removed. What the device still holds
//!    is waited for.
//! 5. Its names are free, the log has it, and its module gives up what it held.
//!
//! So a removal waits for what holders ask for and for the device, and not for holders that do not care.

use crate::counter::Counter;
use crate::error::errno;
use crate::{Bdev, BdevError, Event, Grace, NotificationKind, Phase, Registry};

impl Registry {
    /// Unregisters a bdev, on the app thread. When this answers it is gone: no name leads to it, and its device has
    /// no request. Dropping the future does not stop it.
    ///
    /// # Errors
    /// It is being removed already, or is gone; the runtime stops.
    pub async fn unregister(&self, bdev: &Bdev) -> Result<(), BdevError> {
        let bdev = bdev.clone();
        self.on_app(async move |registry| registry.unregister_here(&bdev).await).await
    }

    /// Unregisters the bdev of that name, alias or UUID if it is one of that module's.
    ///
    /// # Errors
    /// There is none, or it is another module's; and as [`unregister`](Self::unregister).
    pub async fn delete(&self, module: &str, name: &str) -> Result<(), BdevError> {
        let bdev = self.of_module(module, name)?;
        self.unregister(&bdev).await
    }

    /// The bdev of that name, alias or UUID, if it is one of that module's.
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
        self.begin_removal(bdev)?;
        let graces = Counter::default();
        let grace = Grace::new(graces.begin());
        bdev.0.tell(|| Event::Remove(grace.clone()));
        drop(grace);
        graces.none().await;
        if let Some(state) = bdev.0.device.state() {
            state.remove().await;
        }
        self.end_removal(bdev);
        let disk = bdev.disk().clone();
        // On a task of its own: a module that panics has not held up the removal.
        let destructed = spindle_reactor::spawn_local(async move { disk.destruct().await }).await;
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
            Phase::Gone => return Err(BdevError::NoSuchBdev { name: bdev.name().to_owned() }),
        }
        Ok(())
    }

    /// Frees its names; the log has it if it had its registration.
    fn end_removal(&self, bdev: &Bdev) {
        let all = bdev.0.names();
        self.0.names().remove(&bdev.0, &all);
        let mut state = bdev.0.state();
        state.phase = Phase::Gone;
        let announced = state.announced;
        drop(state);
        if announced {
            self.0.log.add(NotificationKind::Unregister, bdev.name());
        }
    }
}
