//! Gives volumes their bdevs: at once, or as soon as nothing is in the way.
//!
//! A volume has no bdev while another bdev has one of its names, and while its external snapshot is missing or open for
//! writing. Tasks of the app thread wait for the end of the first and the last; [`plug_in`](Lvols::plug_in) is called when
//! a bdev has come. They do not keep stores or volumes.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use spindle_bdev::{Bdev, BdevError, ClaimType, Phase, Registry, Uuid};
use spindle_blob::Parent;
use spindle_reactor::{ReportLevel, report, sleep, spawn_local, tell};

use crate::identity::uuid_of;
use crate::state::{Lacks, LvolInner, StoreInner, locked, lvol_of};
use crate::{LvolError, Lvols};

/// How soon a volume that an operation works on is looked at again.
const AGAIN: Duration = Duration::from_millis(10);

impl StoreInner {
    /// Registers the bdev of a volume, unless something it reads through is missing.
    pub(crate) async fn offer(self: &Arc<StoreInner>, lvol: &Arc<LvolInner>) -> Result<(), LvolError> {
        if !lvol.blob_info(self).await?.degraded {
            return lvol.register(self).await;
        }
        lvol.set_lacks(self.external_snapshot_of(lvol).await.map(Lacks::ExternalSnapshot));
        let why = lvol.without_bdev();
        let level = match &why {
            LvolError::Degraded { held: Some(_), .. } => ReportLevel::Warning,
            // Its bdev may come later.
            _ => ReportLevel::Info,
        };
        report(level, "vbdev_lvol", || why.to_string());
        Ok(())
    }

    /// As [`offer`](Self::offer), of a volume that stays: if another bdev has its name, it gets its bdev afterwards.
    pub(crate) async fn offer_or_wait(
        self: &Arc<StoreInner>,
        lvol: &Arc<LvolInner>,
    ) -> Result<(), LvolError> {
        match self.offer(lvol).await {
            Err(LvolError::Bdev(BdevError::Exists { name, by })) => {
                let registry = self.registry()?;
                lvol.name_is_taken(&registry, name, by);
                let (store, lvol) = (Arc::downgrade(self), Arc::downgrade(lvol));
                drop(spawn_local(register_later(registry, store, lvol)));
                Ok(())
            }
            other => other,
        }
    }

    /// The bdev outside of the store that a volume reads through, directly or below its parents, open or not.
    async fn external_snapshot_of(&self, lvol: &LvolInner) -> Option<Uuid> {
        let (mut id, mut seen) = (lvol.id, BTreeSet::new());
        // Parents in a hostile store may form a circle.
        while seen.insert(id) {
            match self.blobstore.blob_info(id).await.ok()?.parent? {
                Parent::External(external) => return uuid_of(&external),
                Parent::Snapshot(parent) => id = parent,
            }
        }
        None
    }
}

impl LvolInner {
    /// Records which bdev has its name, and logs a warning.
    fn name_is_taken(&self, registry: &Registry, name: String, by: String) {
        let by = match registry.get(&name) {
            Ok(bdev) => shown(&bdev),
            Err(_) => format!("bdev {by:?}"),
        };
        let lacks = Some(Lacks::Name { name, by });
        if self.lacks() != lacks {
            self.set_lacks(lacks);
            report(ReportLevel::Warning, "vbdev_lvol", || self.without_bdev().to_string());
        }
    }

    /// Warns that the bdev through which it would read is open for writing.
    pub(crate) fn external_snapshot_is_held(&self, bdev: &Bdev, why: BdevError) {
        let external = Some(bdev.uuid());
        if self.bdev().is_none() {
            self.set_lacks(external.map(Lacks::ExternalSnapshot));
        }
        let error = LvolError::Degraded { lvol: self.shown(), external, held: Some(why) };
        report(ReportLevel::Warning, "vbdev_lvol", || error.to_string());
    }

    /// True if no bdev has one of its names.
    fn is_name_free(&self, registry: &Registry) -> bool {
        let uuid = self.uuid.map(|uuid| uuid.to_string());
        let names = [Some(self.unique_id.clone()), uuid, Some(self.shown())];
        names.iter().flatten().all(|name| registry.get(name).is_err())
    }
}

/// A bdev for messages: a volume by its alias.
fn shown(bdev: &Bdev) -> String {
    match lvol_of(bdev) {
        Some(lvol) => {
            let base = lvol.store.upgrade().map(|store| store.base.name().to_owned()).unwrap_or_default();
            format!("volume {:?} of the lvolstore on bdev {base:?}", lvol.shown())
        }
        None => format!("bdev {:?} of module {}", bdev.name(), bdev.module()),
    }
}

/// Registers the bdev of a volume once its names are free; ends if the volume or its store is closed.
async fn register_later(registry: Registry, store: Weak<StoreInner>, lvol: Weak<LvolInner>) {
    let weak = registry.downgrade();
    drop(registry);
    while let Ok(registry) = weak.get() {
        let (waits, looks) = (lvol.clone(), weak.clone());
        let free = move || {
            let (Some(lvol), Ok(registry)) = (waits.upgrade(), looks.get()) else { return Some(()) };
            (lvol.blob().is_none() || lvol.is_name_free(&registry)).then_some(())
        };
        let released = registry.released(free);
        drop(registry);
        released.await;
        let (Some(store), Some(lvol)) = (store.upgrade(), lvol.upgrade()) else { return };
        if store.register_again(&lvol).await {
            return;
        }
    }
}

impl StoreInner {
    /// Tries to register the bdev of a volume whose names were taken; false if that has to be tried again.
    async fn register_again(self: &Arc<StoreInner>, lvol: &Arc<LvolInner>) -> bool {
        let Ok(_counted) = self.begin() else { return true };
        let _named = self.names_bdevs().await;
        if lvol.blob().is_none() || lvol.bdev().is_some() {
            return true;
        }
        let Ok(_busy) = lvol.begin() else {
            // It may be being deleted.
            sleep(AGAIN).await;
            return false;
        };
        match lvol.register(self).await {
            Ok(()) => {
                tell("vbdev_lvol", || format!("volume {:?} has its bdev now", lvol.shown()));
                true
            }
            Err(LvolError::Bdev(BdevError::Exists { name, by })) => {
                let Ok(registry) = self.registry() else { return true };
                lvol.name_is_taken(&registry, name, by);
                false
            }
            Err(error) => {
                self.note(format!("volume {:?} gets no bdev: {error}", lvol.shown()));
                true
            }
        }
    }
}

impl Lvols {
    /// Lets volumes read a bdev as soon as it can be claimed: it is open for writing now.
    pub(crate) fn plug_in_later(&self, bdev: &Bdev) {
        if !locked(&self.0.awaited).insert(bdev.uuid()) {
            return;
        }
        let (lvols, bdev) = (Arc::downgrade(&self.0), bdev.clone());
        drop(spawn_local(async move {
            let Ok(registry) = bdev.registry() else { return };
            let claimable = || {
                let gone = bdev.phase() != Phase::Ready;
                (gone || bdev.check_claim(ClaimType::ReadManyWriteNone).is_ok()).then_some(())
            };
            let released = registry.released(claimable);
            drop(registry);
            released.await;
            let Some(lvols) = lvols.upgrade().map(Lvols) else { return };
            locked(&lvols.0.awaited).remove(&bdev.uuid());
            if bdev.phase() == Phase::Ready {
                lvols.plug_in(&bdev).await;
            }
        }));
    }
}
