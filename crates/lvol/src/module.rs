//! The module: the stores of one runtime, and its reactions to new bdevs and to the shutdown of the registry.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use spindle_bdev::{Bdev, Counter, LocalFuture, Module, Registry, Uuid, WeakRegistry};
use spindle_block::Device;
use spindle_reactor::{Handle, ReportLevel, now, report};

use crate::external::Missing;
use crate::lvol::LvolInner;
use crate::store::{StoreInner, locked};
use crate::unload::{LEAST_PATIENCE, PATIENCE};
use crate::{Lvol, LvolError, LvolStore, MODULE, StoreSpec};

/// Number of reports kept on bdevs without a usable store: the last ones.
const REPORTS: usize = 64;

/// The logical volumes of a runtime. A handle, for any thread.
#[derive(Clone)]
pub struct Lvols(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) registry: WeakRegistry,
    /// In the order in which they were loaded.
    stores: Mutex<Vec<Arc<StoreInner>>>,
    reports: Mutex<Vec<(String, String)>>,
    /// UUIDs of bdevs that volumes read as soon as they are not open for writing any more.
    pub(crate) awaited: Mutex<BTreeSet<Uuid>>,
    /// The placeholder for every external snapshot that was removed.
    pub(crate) missing: Arc<dyn Device>,
    /// Inflates, decouples and shallow copies under way.
    pub(crate) copying: Counter,
    /// Set once those must end.
    pub(crate) ends_copying: AtomicBool,
    /// Unloads that failed at the shutdown.
    failed_unloads: AtomicU64,
}

/// How to find a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKey {
    /// By its name.
    Name(String),
    /// By its UUID.
    Uuid(Uuid),
}

impl std::fmt::Display for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreKey::Name(name) => write!(f, "{name:?}"),
            StoreKey::Uuid(uuid) => write!(f, "{uuid}"),
        }
    }
}

impl Lvols {
    /// Makes the logical volumes of a registry's runtime: stores on its bdevs are loaded, now and as bdevs
    /// come. Returns the existing module, if there is one.
    ///
    /// # Errors
    /// The runtime stops.
    pub async fn start(registry: &Registry) -> Result<Lvols, LvolError> {
        registry
            .on_app(async |registry: Registry| {
                let Some(runtime) = Handle::current() else { return Err(LvolError::NotStarted) };
                runtime.set_extension(Arc::new(Shared {
                    registry: registry.downgrade(),
                    stores: Mutex::default(),
                    reports: Mutex::default(),
                    awaited: Mutex::default(),
                    missing: Arc::new(Missing),
                    copying: Counter::default(),
                    ends_copying: AtomicBool::new(false),
                    failed_unloads: AtomicU64::new(0),
                }));
                let lvols = Lvols::of(&runtime)?;
                registry.add_module(Arc::new(lvols.clone())).await?;
                Ok(lvols)
            })
            .await
    }

    /// The logical volumes of a runtime.
    ///
    /// # Errors
    /// They were not started.
    pub fn of(runtime: &Handle) -> Result<Lvols, LvolError> {
        runtime.extension::<Shared>().map(Lvols).ok_or(LvolError::NotStarted)
    }

    /// The logical volumes of the current runtime.
    ///
    /// # Errors
    /// They were not started, or the caller is not on a Spindle thread.
    pub fn current() -> Result<Lvols, LvolError> {
        Handle::current().ok_or(LvolError::NotStarted).and_then(|runtime| Lvols::of(&runtime))
    }

    /// The stores, in the order in which they were loaded.
    pub fn stores(&self) -> Vec<LvolStore> {
        locked(&self.0.stores).iter().cloned().map(LvolStore).collect()
    }

    /// The store of that name or UUID.
    ///
    /// # Errors
    /// There is none.
    pub fn store(&self, key: &StoreKey) -> Result<LvolStore, LvolError> {
        let is = |store: &&Arc<StoreInner>| match key {
            StoreKey::Name(name) => store.name().as_str() == name,
            StoreKey::Uuid(uuid) => store.uuid == *uuid,
        };
        let found = locked(&self.0.stores).iter().find(is).cloned();
        found.map(LvolStore).ok_or_else(|| LvolError::NoStore { store: key.to_string() })
    }

    /// The volume with the given bdev name, alias or UUID, or called so without having a bdev, because its external
    /// snapshot is missing or another bdev has its name.
    ///
    /// # Errors
    /// There is none.
    pub fn lvol(&self, name: &str) -> Result<Lvol, LvolError> {
        let missing = || LvolError::NoLvol { name: name.to_owned() };
        if let Some(lvol) = self.registry()?.get(name).ok().as_ref().and_then(lvol_of) {
            return Ok(Lvol(lvol));
        }
        let all = locked(&self.0.stores).clone();
        let mut lvols = all.into_iter().flat_map(|store| {
            let lvols = store.volumes.all();
            lvols.into_iter().map(move |lvol| (store.clone(), lvol))
        });
        let is = |(store, lvol): &(Arc<StoreInner>, Arc<LvolInner>)| {
            lvol.bdev().is_none()
                && lvol.blob().is_some()
                && (lvol.unique_id == name || store.alias(&lvol.name()) == name)
        };
        lvols.find(is).map(|(_, lvol)| Lvol(lvol)).ok_or_else(missing)
    }

    /// All volumes of all stores.
    pub fn lvols(&self) -> Vec<Lvol> {
        self.stores().iter().flat_map(LvolStore::lvols).collect()
    }

    /// Creates a store on a bdev and loads it. The bdev's contents are lost; refused if they are of a known
    /// kind and `force` is not set.
    ///
    /// # Errors
    /// No such bdev; it is claimed or open for writing (`EPERM`); the name is taken; options or size do not
    /// fit; a write fails.
    pub async fn create_store(&self, spec: StoreSpec) -> Result<LvolStore, LvolError> {
        let lvols = self.clone();
        self.registry()?.on_app(async move |_: Registry| lvols.make_store(spec).await).await
    }

    /// Examines a bdev again, as when it was new: loads a store on it that was left. Problems are
    /// [reported](Self::reports).
    pub async fn reload(&self, bdev: &Bdev) {
        let (lvols, bdev) = (self.clone(), bdev.clone());
        let Ok(registry) = self.registry() else { return };
        let look = async move |_: Registry| {
            lvols.examine(bdev).await;
            Ok::<(), LvolError>(())
        };
        // Refused only while the runtime stops.
        let _ = registry.on_app(look).await;
    }

    /// Why bdevs hold no store that could be loaded, by bdev name; the last ones.
    pub fn reports(&self) -> Vec<(String, String)> {
        locked(&self.0.reports).clone()
    }

    /// How many stores were not unloaded cleanly when the registry was shut down; the log says which, and why.
    pub fn failed_unloads(&self) -> u64 {
        self.0.failed_unloads.load(Ordering::Relaxed)
    }

    /// What is missing of the stores and volumes on present bdevs, and why, for messages.
    pub fn problems(&self) -> Vec<String> {
        let is_there =
            |(bdev, _): &(String, String)| self.registry().is_ok_and(|known| known.get(bdev).is_ok());
        let stores = self.reports().into_iter().filter(is_there).map(|(_, why)| why);
        stores.chain(self.stores().iter().flat_map(LvolStore::set_aside)).collect()
    }

    pub(crate) fn registry(&self) -> Result<Registry, LvolError> {
        Ok(self.0.registry.get()?)
    }

    pub(crate) fn report(&self, bdev: &Bdev, why: &LvolError) {
        report(ReportLevel::Warning, "vbdev_lvol", || format!("bdev {:?}: {why}", bdev.name()));
        let mut reports = locked(&self.0.reports);
        if reports.len() == REPORTS {
            reports.remove(0);
        }
        reports.push((bdev.name().to_owned(), why.to_string()));
    }

    /// Refuses a name that a store other than `except` has.
    pub(crate) fn check_name(&self, name: &str, except: Option<&StoreInner>) -> Result<(), LvolError> {
        let stores = locked(&self.0.stores);
        let other = |store: &&Arc<StoreInner>| !except.is_some_and(|except| std::ptr::eq(except, &***store));
        match stores.iter().filter(other).find(|store| store.name().as_str() == name) {
            Some(by) => {
                Err(LvolError::StoreExists { name: name.to_owned(), base: by.base.name().to_owned() })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn add_store(&self, store: Arc<StoreInner>) {
        locked(&self.0.stores).push(store);
    }

    pub(crate) fn remove_store(&self, store: &StoreInner) {
        locked(&self.0.stores).retain(|known| !std::ptr::eq(&**known, store));
    }

    /// The store on a bdev.
    pub(crate) fn store_on(&self, base: &Bdev) -> Option<Arc<StoreInner>> {
        locked(&self.0.stores).iter().find(|store| store.base == *base).cloned()
    }
}

/// The volume of a bdev, if it is one.
pub(crate) fn lvol_of(bdev: &Bdev) -> Option<Arc<LvolInner>> {
    let disk: Arc<dyn Any + Send + Sync> = bdev.disk().clone();
    disk.downcast().ok()
}

impl Module for Lvols {
    fn name(&self) -> &'static str {
        MODULE
    }

    fn examine(&self, bdev: Bdev) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            self.plug_in(&bdev).await;
            if let Err(error) = self.load(&bdev).await {
                self.report(&bdev, &error);
            }
        })
    }

    fn shutdown(&self) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            let until = now() + PATIENCE;
            // The latest first: a store on a volume was loaded after that volume's store.
            for store in self.stores().into_iter().rev() {
                let most = until.since(now()).max(LEAST_PATIENCE);
                if let Err(error) = store.0.unload_within(most).await {
                    self.0.failed_unloads.fetch_add(1, Ordering::Relaxed);
                    self.report(&store.0.base, &error);
                }
            }
        })
    }
}

impl std::fmt::Debug for Lvols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lvols({:?})", self.stores())
    }
}
