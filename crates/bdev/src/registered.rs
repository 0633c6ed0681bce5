//! What a bdev does in its registry, and by names of the current one.

use crate::registry::Shared;
use crate::{Bdev, BdevError, Desc, DescOptions, Detail, Event, NotificationKind, Registry};

impl DescOptions {
    /// Opens the bdev of that name, alias or UUID in the current runtime.
    ///
    /// # Errors
    /// As [`Bdev::open`].
    pub fn open(self, name: &str) -> Result<Desc, BdevError> {
        Registry::current_for(name)?.open(name, self)
    }
}

impl Bdev {
    /// Opens the bdev of that name, alias or UUID in the current runtime, for reading and writing. The
    /// descriptor belongs to the calling thread and gets no events; for other choices use [`DescOptions`].
    ///
    /// # Errors
    /// There is none, it is being removed, a claim is in the way, or the caller is not on a Spindle thread of
    /// a runtime with a registry.
    pub fn open(name: &str) -> Result<Desc, BdevError> {
        DescOptions::new().write(true).open(name)
    }

    /// The module's own information about it (`driver_specific`), asked for on the app thread.
    ///
    /// # Errors
    /// The runtime stops.
    pub async fn details(&self) -> Result<Detail, BdevError> {
        let disk = self.0.disk.clone();
        self.registry()?.on_app(async move |_| Ok(disk.details().await)).await
    }

    /// Adds an alias.
    ///
    /// # Errors
    /// The name is empty or taken, or the bdev is being removed or gone.
    pub fn add_alias(&self, alias: &str) -> Result<(), BdevError> {
        let registry = self.registry()?;
        let mut names = registry.0.names();
        let mut state = self.0.state();
        state.check_ready(&self.0.name)?;
        names.add_alias(alias, &self.0)?;
        state.aliases.push(alias.to_owned());
        Ok(())
    }

    /// Replaces one of its aliases by another, atomically and in its place.
    ///
    /// # Errors
    /// It has no such alias, the new one is empty or taken (by this bdev too), or the bdev is being removed or gone.
    pub fn rename_alias(&self, from: &str, to: &str) -> Result<(), BdevError> {
        let registry = self.registry()?;
        let mut names = registry.0.names();
        let mut state = self.0.state();
        state.check_ready(&self.0.name)?;
        let Some(place) = state.aliases.iter().position(|alias| alias == from) else {
            return Err(BdevError::NoSuchBdev { name: from.to_owned() });
        };
        names.add_alias(to, &self.0)?;
        names.remove_alias(from);
        state.aliases[place] = to.to_owned();
        drop(state);
        drop(names);
        registry.look_again();
        Ok(())
    }

    /// Called by its module after the size of its device has changed: notifies open descriptors and the log.
    /// A device that grows does so before this call.
    pub fn resized(&self) {
        self.0.tell(|| Event::Resize);
        if let Ok(registry) = self.registry() {
            registry.0.log.add(NotificationKind::Resize, &self.0.name);
        }
    }

    /// The registry it is in.
    ///
    /// # Errors
    /// The runtime has ended.
    pub fn registry(&self) -> Result<Registry, BdevError> {
        let shared = self.0.registry.upgrade().and_then(|shared| shared.downcast::<Shared>().ok());
        shared.map(Registry).ok_or(BdevError::Stopping)
    }
}
