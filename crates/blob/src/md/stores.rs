//! The stores of a metadata thread, by their devices, and operations sent there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spindle_block::Device;

use super::metadata::Md;
use crate::error::BlobError;
use crate::shared::{Notice, StoreShared};

/// The stores whose metadata thread this is; stored in the thread's extensions.
#[derive(Default)]
struct Stores {
    loaded: RefCell<BTreeMap<usize, Rc<Md>>>,
    /// Stores that operations no longer find and that have not released their devices yet.
    leaving: RefCell<Vec<Rc<Md>>>,
}

impl Stores {
    /// True if the store has not released its device.
    fn have(&self, md: &Rc<Md>) -> bool {
        let is_it = |other: &Rc<Md>| Rc::ptr_eq(other, md);
        self.leaving.borrow().iter().any(is_it) || self.loaded.borrow().values().any(is_it)
    }
}

impl Md {
    /// The metadata of a store whose metadata thread runs the caller.
    pub(crate) fn of(shared: &Arc<StoreShared>) -> Result<Rc<Md>, BlobError> {
        let stores = spindle_reactor::extension::<Stores>();
        let found = stores.loaded.borrow().get(&shared.device.key()).cloned();
        found.ok_or_else(|| shared.gone())
    }

    /// Handles what another thread tells the metadata thread, which runs this.
    pub(super) fn take_notice(shared: &Arc<StoreShared>, notice: Notice) {
        // A store that was left has no more use for it.
        let Ok(md) = Md::of(shared) else { return };
        match notice {
            Notice::MemberLeft(reserve) => md.member_left(&reserve),
            Notice::Unseen(blob) => md.unseen(blob),
        }
    }

    /// Waits until stores of this metadata thread have released a device that they are leaving.
    pub(super) async fn abandoned_are_gone(device: &Arc<dyn Device>) {
        let stores = spindle_reactor::extension::<Stores>();
        loop {
            let is_on_it = |md: &&Rc<Md>| Arc::ptr_eq(md.shared.device.device(), device);
            let is_abandoned = |md: &&Rc<Md>| is_on_it(md) && md.shared.abandoned.load(Ordering::Acquire);
            let leaving = stores.leaving.borrow().iter().find(is_on_it).cloned();
            let found = leaving.or_else(|| stores.loaded.borrow().values().find(is_abandoned).cloned());
            let Some(md) = found else { return };
            md.left.until(|| (!stores.have(&md)).then_some(())).await;
        }
    }

    pub(super) fn register(self: &Rc<Md>) {
        let stores = spindle_reactor::extension::<Stores>();
        stores.loaded.borrow_mut().insert(self.shared.device.key(), self.clone());
    }

    /// Hides the store from operations.
    pub(super) fn forget(self: &Rc<Md>) {
        let stores = spindle_reactor::extension::<Stores>();
        stores.loaded.borrow_mut().remove(&self.shared.device.key());
        stores.leaving.borrow_mut().push(self.clone());
    }

    /// Notes that the store has released its device.
    pub(super) fn has_left(self: &Rc<Md>) {
        let stores = spindle_reactor::extension::<Stores>();
        stores.leaving.borrow_mut().retain(|leaving| !Rc::ptr_eq(leaving, self));
        self.left.wake_all();
    }
}

/// Runs an operation on the store's metadata thread, to its end even if this future is dropped.
pub(crate) async fn on_md<R, F>(shared: &Arc<StoreShared>, operation: F) -> Result<R, BlobError>
where
    F: AsyncFnOnce(Rc<Md>) -> Result<R, BlobError> + Send + 'static,
    R: Send + 'static,
{
    let here = shared.clone();
    let there = async move || {
        let md = Md::of(&here)?;
        let store = here.clone();
        let task = spindle_reactor::spawn_local(async move {
            // No operation begins while the store is being left.
            if store.is_unloaded() { Err(store.gone()) } else { operation(md).await }
        });
        task.await.unwrap_or_else(|error| Err(here.panicked(&error)))
    };
    match shared.md.run(there).await {
        Ok(result) => result,
        Err(_gone) => Err(shared.gone()),
    }
}
