//! The state of the module: the stores of one runtime.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use spindle_bdev::{Bdev, Counter, Registry, Uuid, WeakRegistry};
use spindle_block::Device;
use spindle_reactor::{ReportLevel, report};

use super::locked::locked;
use super::store::{LvolStore, StoreInner};
use crate::LvolError;
use crate::store_key::StoreKey;

/// Number of reports kept on bdevs without a usable store: the last ones.
const REPORTS: usize = 64;

/// The logical volumes of a runtime. A handle, for any thread.
#[derive(Clone)]
pub struct Lvols(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) registry: WeakRegistry,
    /// In the order in which they were loaded.
    pub(crate) stores: Mutex<Vec<Arc<StoreInner>>>,
    pub(crate) reports: Mutex<Vec<(String, String)>>,
    /// UUIDs of bdevs that volumes read as soon as they are not open for writing any more.
    pub(crate) awaited: Mutex<BTreeSet<Uuid>>,
    /// The placeholder for every external snapshot that was removed.
    pub(crate) missing: Arc<dyn Device>,
    /// Inflates, decouples and shallow copies under way.
    pub(crate) copying: Counter,
    /// Set once those must end.
    pub(crate) ends_copying: AtomicBool,
    /// Unloads that failed at the shutdown.
    pub(crate) failed_unloads: AtomicU64,
}

impl Lvols {
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

    /// True if a device is the placeholder for a removed bdev.
    pub(crate) fn is_missing(&self, device: &Arc<dyn Device>) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(device), Arc::as_ptr(&self.0.missing))
    }
}
