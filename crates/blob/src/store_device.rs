//! The device of a store, and each thread's way to it.
//!
//! A cluster may be given to another blob only when every request that was sent to it has ended, also one
//! whose future was dropped. The look-up of a cluster and the making of its request happen in one poll, so that
//! a message to the thread cannot come between them, and [`Channel::quiesce`] waits for what was made before.
//! [`Local`] is what a thread keeps of a store it does I/O to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use spindle_block::{Channel, Claimed, Device, OpenError};

use crate::local::Local;
use crate::shared::{Membership, locked};

/// The device of one store.
pub(crate) struct StoreDevice {
    device: Arc<dyn Device>,
    /// While a store may be written that is on it.
    claimed: Mutex<Option<Claimed>>,
}

impl StoreDevice {
    /// A device of a store that is only read.
    pub(crate) fn new(device: Arc<dyn Device>) -> Arc<StoreDevice> {
        Arc::new(StoreDevice { device, claimed: Mutex::default() })
    }

    /// Has it belong to this store.
    pub(crate) fn claim(&self) -> Result<(), OpenError> {
        *locked(&self.claimed) = Some(Claimed::take(self.device.clone())?);
        Ok(())
    }

    /// Lets another store have it.
    pub(crate) fn let_go(&self) {
        *locked(&self.claimed) = None;
    }

    /// What lies below.
    pub(crate) fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// What tells it from every other while it exists.
    pub(crate) fn key(self: &Arc<StoreDevice>) -> usize {
        Arc::as_ptr(self) as usize
    }

    /// The size of the device now.
    pub(crate) fn bytes(&self) -> u64 {
        self.device.geometry().bytes()
    }

    /// Makes this thread's way to it: of a member, or of the metadata thread.
    pub(crate) fn local(
        self: &Arc<StoreDevice>,
        membership: impl Into<Option<Membership>>,
    ) -> Result<Rc<Local>, OpenError> {
        let locals = spindle_reactor::extension::<Locals>();
        // Kept in the thread's extension, which an exit drops.
        let channel = Channel::open_unheld(self.device.clone())?;
        // It may have grown since another lane of this thread opened it.
        channel.refresh();
        let local = Rc::new(Local::new(channel, membership.into()));
        locals.opened.borrow_mut().insert(self.key(), local.clone());
        Ok(local)
    }

    /// This thread's way to it, if it was made.
    pub(crate) fn known(self: &Arc<StoreDevice>) -> Option<Rc<Local>> {
        spindle_reactor::extension::<Locals>().get(self.key())
    }

    /// Forgets this thread's way to it, on which there are no requests, and lets another store have it.
    pub(crate) fn abandon(self: &Arc<StoreDevice>) {
        drop(spindle_reactor::extension::<Locals>().remove(self.key()));
        self.let_go();
    }

    /// Forgets this thread's way to it, once its requests have ended.
    pub(crate) async fn close_local(self: &Arc<StoreDevice>) {
        let local = spindle_reactor::extension::<Locals>().remove(self.key());
        if let Some(local) = local {
            local.quiesce().await;
        }
    }
}

/// A thread's stores; lives in the thread's extensions.
#[derive(Default)]
struct Locals {
    opened: RefCell<BTreeMap<usize, Rc<Local>>>,
    /// The one that was asked for last, which is mostly the one that is asked for next.
    last: RefCell<Option<(usize, Rc<Local>)>>,
}

impl Locals {
    fn get(&self, key: usize) -> Option<Rc<Local>> {
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

    fn remove(&self, key: usize) -> Option<Rc<Local>> {
        drop(self.last.take());
        self.opened.borrow_mut().remove(&key)
    }
}
