//! The device of a store, and each thread's access to it.
//!
//! A cluster may be given to another blob only when every request sent to it has ended, also requests whose
//! futures were dropped. Looking a cluster up and making its request happen in one poll, so that a message to
//! the thread cannot come in between, and [`Channel::quiesce`] waits for all requests made before. [`StoreLocal`]
//! is a thread's data about a store to which it does I/O.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use spindle_block::{Channel, Claimed, Device, OpenError};

use super::store_local::StoreLocal;
use crate::space::Reserve;
use crate::waiting::{OnDrop, locked};

/// The device of one store.
pub(crate) struct StoreDevice {
    device: Arc<dyn Device>,
    /// Held while a store on it may be written.
    claimed: Mutex<Option<Claimed>>,
}

impl StoreDevice {
    /// The device of a store that is only read.
    pub(crate) fn new(device: Arc<dyn Device>) -> Arc<StoreDevice> {
        Arc::new(StoreDevice { device, claimed: Mutex::default() })
    }

    /// Claims it for this store. Waits for a store that is about to release it.
    pub(crate) async fn claim(&self) -> Result<(), OpenError> {
        let claimed = Claimed::take_when_left(self.device.clone()).await?;
        *locked(&self.claimed) = Some(claimed);
        Ok(())
    }

    /// Tells other stores that this one is about to release it.
    pub(crate) fn leave(&self) {
        locked(&self.claimed).iter().for_each(Claimed::leave);
    }

    /// Releases the claim.
    pub(crate) fn let_go(&self) {
        *locked(&self.claimed) = None;
    }

    /// The device below.
    pub(crate) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Identifies it while it exists.
    pub(crate) fn key(self: &Arc<StoreDevice>) -> usize {
        Arc::as_ptr(self) as usize
    }

    /// The size of the device now.
    pub(crate) fn bytes(&self) -> u64 {
        self.device.geometry().bytes()
    }

    /// Makes this thread's access to it, with its reserve of clusters; `end` is called when that is dropped.
    pub(crate) fn local(
        self: &Arc<StoreDevice>,
        reserve: Arc<Reserve>,
        end: Option<OnDrop>,
    ) -> Result<Rc<StoreLocal>, OpenError> {
        let locals = spindle_reactor::extension::<Locals>();
        // Kept in the thread's extension, which an exit drops.
        let channel = Channel::open_unheld(self.device.clone())?;
        // It may have grown since another lane of this thread opened it.
        channel.refresh();
        let local = Rc::new(StoreLocal::new(channel, reserve, end));
        locals.opened.borrow_mut().insert(self.key(), local.clone());
        Ok(local)
    }

    /// This thread's access to it, if it exists.
    pub(crate) fn known(self: &Arc<StoreDevice>) -> Option<Rc<StoreLocal>> {
        spindle_reactor::extension::<Locals>().get(self.key())
    }

    /// Drops this thread's access to it, which has no requests, and releases the claim.
    pub(crate) fn abandon(self: &Arc<StoreDevice>) {
        drop(spindle_reactor::extension::<Locals>().remove(self.key()));
        self.let_go();
    }

    /// Drops this thread's access to it, once its requests have ended.
    pub(crate) async fn close_local(self: &Arc<StoreDevice>) {
        let local = spindle_reactor::extension::<Locals>().remove(self.key());
        if let Some(local) = local {
            local.quiesce().await;
        }
    }
}

/// A thread's stores; kept in the thread's extensions.
#[derive(Default)]
struct Locals {
    opened: RefCell<BTreeMap<usize, Rc<StoreLocal>>>,
    /// The last one used, which is usually the next one used.
    last: RefCell<Option<(usize, Rc<StoreLocal>)>>,
}

impl Locals {
    fn get(&self, key: usize) -> Option<Rc<StoreLocal>> {
        if let Some((last, local)) = &*self.last.borrow()
            && *last == key
        {
            return Some(local.clone());
        }
        let found = self.opened.borrow().get(&key).cloned();
        if let Some(local) = &found {
            *self.last.borrow_mut() = Some((key, local.clone()));
        }
        found
    }

    fn remove(&self, key: usize) -> Option<Rc<StoreLocal>> {
        drop(self.last.take());
        self.opened.borrow_mut().remove(&key)
    }
}
